"""Are the queues and bindings there that must get what a service publishes? The relay asks before and after.

Publishing is confirmed as long as *some* queue got a copy: one that is missing loses its own silently.
"""

import time
from collections.abc import Collection
from typing import TYPE_CHECKING

import httpx
import structlog

from clinic_shared.broker import Broker
from clinic_shared.contracts import PLATFORM
from clinic_shared.management import Management
from clinic_shared.topology import AUDIT_EXCHANGE, QueueProbe, Topology, event_exchange, installed

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

log = structlog.get_logger()

ROUTES_SECONDS = 5.0


class RouteMissingError(Exception):
    """A queue or binding that must get our events isn't there: publishing would lose its copy."""


class Routes:
    """Are the queues and bindings there that must get what this service publishes?"""

    def __init__(self, runtime: "Runtime") -> None:
        self._topology = Topology.of(installed(runtime))
        self._awaited = {binding for queue in self._topology.queues for binding in queue.bindings}
        self._exchanges = (
            event_exchange(runtime.service.name),
            event_exchange(PLATFORM),
            AUDIT_EXCHANGE,
        )
        self._probe = QueueProbe(Broker.of(runtime).publishing)
        self._management = Management.of(runtime)
        self._verified_at = 0.0

    def awaits(self, exchange: str, event_type: str) -> bool:
        """Tell whether an installed service subscribes: with all subscribers left out, nobody does."""
        return (exchange, event_type) in self._awaited

    async def must_exist(self, exchange: str, types: Collection[str] | None = None) -> None:
        """Raise RouteMissingError unless every queue behind the exchange (that gets these types) exists."""
        missing = await self._probe.missing(self._topology.queues_behind(exchange, types))
        if missing:
            self._verified_at = 0.0
            raise RouteMissingError(f"missing: {', '.join(missing)}")

    async def verify_now_and_then(self) -> None:
        """Before publishing: queues always after a failure, else every few seconds; bindings too."""
        if time.monotonic() - self._verified_at < ROUTES_SECONDS:
            return
        for exchange in self._exchanges:
            await self.must_exist(exchange)
            await self._must_be_bound(exchange)
        self._verified_at = time.monotonic()

    async def _must_be_bound(self, exchange: str) -> None:
        if self._management is None:
            return
        try:
            bound = await self._management.bindings_from(exchange)
        except httpx.HTTPError as error:
            # Without the management API the queues' existence is what can be known.
            log.warning("bindings_not_verified", exchange=exchange, exc_info=error)
            return
        missing = self._topology.bindings_of(exchange) - bound
        if missing:
            raise RouteMissingError(f"not bound: {', '.join(sorted(queue for queue, _ in missing))}")

    async def aclose(self) -> None:
        if self._management is not None:
            await self._management.close()
