"""Keys that OAuth2 clients publish at a URL of their own, kept for a while (SMART Backend Services).

They are read before a transaction begins; within one, only what is kept here counts.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from clinic_shared import strict_json

from clinic_identity.client_assertions import usable_keys
from clinic_identity.public_sites import NotPublicError, PublicSites, UnreadableError

log = structlog.get_logger()

MAX_BYTES = 64 * 1024
MAX_KEPT = 1000
FRESH_SECONDS = 300
ASKED_AGAIN_SECONDS = 30
"""Neither invented key ids nor a site that is away make us ask more often."""
KEPT_SECONDS = 3600
"""So long a client's signatures go on counting while its site is away."""


@dataclass
class _Kept:
    asked_at: float
    read_at: float
    jwks: dict[str, Any]


class ClientKeys:
    def __init__(self, sites: PublicSites, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._sites = sites
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def known(self, url: str) -> dict[str, Any]:
        """Return the keys that were read lately; none, if there are no such."""
        kept = self._kept.get(url)
        if kept is None or self._clock() >= kept.read_at + KEPT_SECONDS:
            return {"keys": []}
        return kept.jwks

    async def refresh(self, url: str, key_id: str) -> None:
        """Read the keys again if they are old, or lack one that a client says it signed with."""
        kept = self._kept.get(url)
        now = self._clock()
        if kept is not None:
            fresh = now < kept.read_at + FRESH_SECONDS and any(k["kid"] == key_id for k in kept.jwks["keys"])
            if fresh or now < kept.asked_at + ASKED_AGAIN_SECONDS:
                return
            kept.asked_at = now
        jwks = await self._read(url)
        if jwks is not None:
            self._keep(url, _Kept(asked_at=now, read_at=now, jwks=jwks))
        elif kept is None:
            self._keep(url, _Kept(asked_at=now, read_at=now - KEPT_SECONDS, jwks={"keys": []}))

    async def _read(self, url: str) -> dict[str, Any] | None:
        try:
            return usable_keys(await self._sites.read(url, max_bytes=MAX_BYTES))
        except (NotPublicError, UnreadableError) as error:
            log.warning("client_keys_unreadable", reason=str(error))
        except strict_json.StrictJSONError:
            log.warning("client_keys_unreadable", reason="It isn't JSON.")
        return None

    def _keep(self, url: str, kept: _Kept) -> None:
        self._kept[url] = kept
        self._kept.move_to_end(url)
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
