"""Connecting where others say (SSRF): to the public internet, to networks that the operator names, and nowhere else.

A name is resolved once, every address it has must be allowed, and that very address is connected to: a second answer
of the name server changes nothing.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

import httpx

Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[list[str]]]

LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
WELL_KNOWN = frozenset({80, 443})
"""Of the ports below 1024, where a laboratory or a vendor serves; mail, shells and directories have the others."""
_FIRST_FREE_PORT = 1024
_PORTS = {"http": 80, "https": 443}
# The last label begins with a letter: whatever a resolver would take for a number (`127.1`, `0x7f000001`) is no name.
_NAME = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?",
    re.IGNORECASE,
)
_GLOBAL = IPv6Network("2000::/3")
_NAT64, _6TO4, _TEREDO = IPv6Network("64:ff9b::/96"), IPv6Network("2002::/16"), IPv6Network("2001::/32")


class DestinationRefusedError(httpx.ConnectError):
    """What is named leads to where nobody outside may send us. The text says how."""


def is_public(address: str) -> bool:
    """Tell whether an address is on the public internet, whatever it is wrapped into."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        if ip in _TEREDO:
            return False
        inner = _inner(ip)
        if inner is None:
            return ip in _GLOBAL and ip.is_global and not ip.is_multicast and not ip.is_reserved
        ip = inner
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _inner(ip: IPv6Address) -> IPv4Address | None:
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    if ip in _6TO4:
        return IPv4Address((int(ip) >> 80) & 0xFFFF_FFFF)
    return None


async def resolve(host: str, port: int) -> list[str]:
    """Return every address of a name. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def networks_of(text: str) -> tuple[Network, ...]:
    """Read networks, comma separated. Raises ValueError."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


class Destinations:
    """Where this process connects on others' word. In `networks` any port counts: the operator knows who is there."""

    def __init__(self, networks: Iterable[Network] = (), *, resolver: Resolve = resolve) -> None:
        self._networks = tuple(networks)
        self._resolve = resolver

    def check(self, url: str) -> None:
        """Refuse an address for what its text tells already. Raises DestinationRefusedError."""
        host, port = _host_and_port(url)
        literal = _literal(host)
        if literal is not None:
            self._judge([literal], port)
        elif not _NAME.fullmatch(host):
            raise DestinationRefusedError("The host is neither a name nor an address.")
        elif not self._networks:
            _check_port(port)

    async def address_of(self, host: str, port: int) -> str:
        """Return the address to connect to. Raises DestinationRefusedError, OSError for a name that nobody knows."""
        literal = _literal(host)
        if literal is None and not _NAME.fullmatch(host):
            raise DestinationRefusedError("The host is neither a name nor an address.")
        addresses = [literal] if literal else await self._resolve(host, port)
        self._judge(addresses, port)
        return addresses[0]

    def _judge(self, addresses: list[str], port: int) -> None:
        outside = [address for address in addresses if not self._is_named(address)]
        if not addresses or not all(map(is_public, outside)):
            raise DestinationRefusedError(
                "It leads to an address that is neither public nor in a network named."
            )
        if outside:
            _check_port(port)

    def _is_named(self, address: str) -> bool:
        ip = ip_address(address)
        return any(ip in network for network in self._networks)


class GuardedTransport(httpx.AsyncHTTPTransport):
    """HTTP to where `Destinations` lets it: the address that was judged, with the certificate still that of the name."""

    def __init__(self, destinations: Destinations) -> None:
        # A connection that is kept was verified for one name, and several may share its address.
        super().__init__(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
        self._destinations = destinations

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        try:
            address = await self._destinations.address_of(url.host, url.port or _PORTS[url.scheme])
        except OSError as error:
            raise httpx.ConnectError("The name is not known.", request=request) from error
        guarded = httpx.Request(
            request.method,
            url.copy_with(host=address),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": url.host},
        )
        return await super().handle_async_request(guarded)


def _host_and_port(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise DestinationRefusedError("It isn't a URL.") from None
    if not url.isascii() or not url.isprintable() or "\\" in url or " " in url:
        raise DestinationRefusedError("It has characters that a URL has not.")
    if parts.username is not None or parts.password is not None:
        raise DestinationRefusedError("It has user info.")
    port = port or _PORTS.get(parts.scheme)
    if port is None:
        raise DestinationRefusedError("It names no port.")
    return host, port


def _literal(host: str) -> str | None:
    try:
        return str(ip_address(host))
    except ValueError:
        return None


def _check_port(port: int) -> None:
    if port < _FIRST_FREE_PORT and port not in WELL_KNOWN:
        raise DestinationRefusedError("The port is one of those that aren't a laboratory's.")
