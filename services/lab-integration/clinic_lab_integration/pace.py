"""How fast each laboratory may send: a bucket of tokens per partner, in this process's memory."""

import time
from collections.abc import Callable
from uuid import UUID

from clinic_lab_integration.store import Partner

_BURST_SECONDS = 2.0


class Pace:
    """Kept per process: the limit protects it from one sender, it isn't a price."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._free_at: dict[UUID, float] = {}

    def seconds_to_wait(self, partner: Partner) -> float:
        """How long the partner's next message is too early; 0 when it may come now."""
        if partner.connection.messages_per_second is None:
            return 0.0
        ahead = self._free_at.get(partner.partner_id, 0.0) - self._monotonic()
        return max(0.0, ahead - _BURST_SECONDS)

    def count(self, partner: Partner, messages: int) -> None:
        """Note that messages were taken."""
        rate = partner.connection.messages_per_second
        if rate is not None:
            now = self._monotonic()
            begins_at = max(now, self._free_at.get(partner.partner_id, 0.0))
            self._free_at[partner.partner_id] = begins_at + messages / rate
