"""All rate limits together: per address, per caller, for sign-ins, and those of single routes."""

import time
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from clinic_gateway.errors import TooManyRequestsError
from clinic_gateway.exchange import Exchange
from clinic_gateway.limits import RateLimit
from clinic_gateway.metrics import RATE_LIMITED
from clinic_gateway.rate_rules import By, limits_by_prefix, read_rules
from clinic_gateway.routes import Route
from clinic_gateway.settings import GatewaySettings


class RateLimits:
    """Each method counts the request once. All raise TooManyRequestsError."""

    def __init__(self, settings: GatewaySettings) -> None:
        address, caller = settings.rate_address_per_second, settings.rate_subject_per_second
        burst = settings.rate_burst_seconds
        self._address = RateLimit("address", address, address * burst)
        self._caller = RateLimit("caller", caller, caller * burst)
        self._sign_in = RateLimit("sign-in", settings.rate_sign_in_per_second, settings.rate_sign_in_burst)
        self._of_routes = limits_by_prefix(read_rules(settings.rate_limits_file))

    def count_address(self, exchange: Exchange, address: str) -> None:
        _count(exchange, self._address, network_of(address))

    def count_route(self, exchange: Exchange, route: Route, address: str) -> None:
        """Before anybody knows who is calling."""
        if route.sign_in:
            _count(exchange, self._sign_in, network_of(address))
        self._count_own(exchange, route, "address", network_of(address))

    def count_caller(self, exchange: Exchange, route: Route | None, caller: str | None, address: str) -> None:
        """`caller` is None without a token; then the address counts, since nobody has proved to be anyone."""
        if caller is not None:
            _count(exchange, self._caller, caller)
        if route is not None:
            self._count_own(exchange, route, "caller", caller or network_of(address))

    def _count_own(self, exchange: Exchange, route: Route, by: By, key: str) -> None:
        for rule in self._of_routes.get(route.prefix, ()):
            if rule.by == by and rule.holds_for(exchange.method):
                _count(exchange, rule.limit, key)


def _count(exchange: Exchange, limit: RateLimit, key: str) -> None:
    try:
        exchange.stand(limit.check(key, time.monotonic()))
    except TooManyRequestsError as error:
        exchange.standing = error.standing
        RATE_LIMITED.labels(limit.name).inc()
        raise


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Return whom a limit is for: of IPv6 the /64, since everybody has as many addresses as they like."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address):
        return str(IPv6Address(int(parsed) >> 64 << 64))
    return address
