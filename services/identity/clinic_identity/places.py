"""Where somebody may log in from, by role: networks, and countries by an offline database.

Judged at every login and every refresh. Without a file of rules every place will do.
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Any, Protocol, Self

import maxminddb
import yaml
from clinic_shared.errors import ForbiddenError
from pydantic import BaseModel, ConfigDict, Field
from pydantic.networks import IPvAnyNetwork


class PlaceRefusedError(ForbiddenError):
    """A role of the account may log in from certain networks or countries only, and this isn't one."""

    slug = "place-refused"
    title = "You can't log in from here"
    fix = "Use the clinic's network. The operator's file of places says which roles may log in from where."


Country = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]


class RolePlaces(BaseModel):
    """An address must be in one of the networks or countries that are named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    networks: tuple[IPvAnyNetwork, ...] = ()
    countries: frozenset[Country] = frozenset()


class _Rules(BaseModel):
    model_config = ConfigDict(extra="forbid")

    roles: dict[str, RolePlaces] = {}


class Countries(Protocol):
    """`maxminddb.Reader`, as far as it is needed here."""

    def get(self, address: str) -> Any: ...


class Places:
    def __init__(self, rules: Mapping[str, RolePlaces], countries: Countries | None = None) -> None:
        self._rules = rules
        self._countries = countries

    @classmethod
    def load(cls, rules_file: Path | None, countries_file: Path | None) -> Self:
        rules: Mapping[str, RolePlaces] = {}
        if rules_file is not None:
            rules = _Rules.model_validate(yaml.safe_load(rules_file.read_text(encoding="utf-8")) or {}).roles
        if countries_file is None and any(places.countries for places in rules.values()):
            raise ValueError("rules name countries: set CLINIC_COUNTRY_DATABASE_FILE")
        return cls(rules, maxminddb.open_database(str(countries_file)) if countries_file else None)

    def require(self, roles: Iterable[str], address: str) -> None:
        """Raises PlaceRefusedError unless every role that has rules may be used from here."""
        rules = [self._rules[role] for role in roles if role in self._rules]
        if not rules:
            return
        try:
            here = _plain(ip_address(address))
        except ValueError:
            raise PlaceRefusedError from None
        if not all(self._is_allowed(places, here) for places in rules):
            raise PlaceRefusedError

    def country_of(self, address: str) -> str | None:
        """Return where an address is, by the offline database; None without one, or when it doesn't know."""
        try:
            return self._country_of(_plain(ip_address(address)))
        except ValueError:
            return None

    def _is_allowed(self, places: RolePlaces, here: IPv4Address | IPv6Address) -> bool:
        if any(here in network for network in places.networks):
            return True
        return bool(places.countries) and self._country_of(here) in places.countries

    def _country_of(self, here: IPv4Address | IPv6Address) -> str | None:
        try:
            found = self._countries.get(str(here)) if self._countries else None
        except ValueError:  # an IPv6 address, and the database knows IPv4 only
            return None
        country = found.get("country") if isinstance(found, dict) else None
        code = country.get("iso_code") if isinstance(country, dict) else None
        return code if isinstance(code, str) else None


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address behind its IPv6 spelling, so that one rule holds for both."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
