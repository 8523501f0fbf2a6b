"""How a laboratory is connected, as the clinic has configured it: pure values.

The ways in that are open to it, what it is answered, how fast it may send, whether it is only tried out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any, Self

from clinic_lab_integration.hl7 import PROCESSING_IDS, PRODUCTION, TESTS, AckMode

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Protocol(StrEnum):
    """A way in. `files` are those of a watched folder."""

    HTTP = "http"
    MLLP = "mllp"
    FHIR = "fhir"
    FILES = "files"


@dataclass(frozen=True, kw_only=True)
class Connection:
    """`test_mode` True takes only MSH-11 T and D, False only P; None leaves it to the deployment's setting.

    `mllp_peers` are networks that need no other proof over MLLP; with `mllp_certificate_names` a client
    certificate with one of these names is demanded besides.
    """

    protocols: frozenset[Protocol] = frozenset(Protocol)
    ack_mode: AckMode = AckMode.BY_MESSAGE
    messages_per_second: float | None = None
    test_mode: bool | None = None
    mllp_peers: tuple[str, ...] = ()
    mllp_certificate_names: tuple[str, ...] = ()
    callback_url: str | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any] | None) -> Self:
        """Read what `document` gave. A later release may have written more than is known here."""
        known = {name: (document or {}).get(name) for name in cls.__dataclass_fields__}
        given = {name: value for name, value in known.items() if value is not None}
        if "protocols" in given:
            given["protocols"] = frozenset(map(Protocol, given["protocols"]))
        if "ack_mode" in given:
            given["ack_mode"] = AckMode(given["ack_mode"])
        for name in ("mllp_peers", "mllp_certificate_names"):
            given[name] = tuple(given.get(name, ()))
        return cls(**given)

    def document(self) -> dict[str, Any]:
        return {
            **vars(self),
            "protocols": sorted(self.protocols),
            "mllp_peers": list(self.mllp_peers),
            "mllp_certificate_names": list(self.mllp_certificate_names),
        }

    @property
    def processing_ids(self) -> frozenset[str]:
        """What of MSH-11 is taken; the rest is refused."""
        if self.test_mode is None:
            return PROCESSING_IDS
        return TESTS if self.test_mode else PRODUCTION

    def nearness(self, peer: Address, certificate_names: frozenset[str]) -> int | None:
        """How exactly this configuration means a peer that connected over MLLP; None if it doesn't.

        Who has registered a certificate can't be taken for somebody else by the address alone.
        """
        if self.mllp_certificate_names:
            if certificate_names.isdisjoint(self.mllp_certificate_names):
                return None
            return 1 + _MOST_BITS if not self.mllp_peers or self._prefix(peer) is not None else None
        return self._prefix(peer)

    def _prefix(self, peer: Address) -> int | None:
        networks = (ip_network(text) for text in self.mllp_peers)
        return max((network.prefixlen for network in networks if peer in network), default=None)


_MOST_BITS = 128
