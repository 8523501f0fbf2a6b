"""Asking addresses that others name (SSRF): a site on the public internet, and nothing else that we can reach.

The name is resolved once, every address it has must be public, and that very address is connected to, so that a
second answer of the name server changes nothing. No redirects, no proxies, little time, small answers.
"""

import asyncio
import re
from urllib.parse import urlsplit

import httpx
from clinic_shared.destinations import Resolve, is_public, resolve

CONNECT_SECONDS = 3
TOTAL_SECONDS = 10
_HTTPS = 443
# The last label is letters: whatever a resolver would take for a number (`127.1`, `0x7f000001`) is no name.
_NAME = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?:[a-z]{2,63}|xn--[a-z0-9-]{2,59})"
)


class NotPublicError(Exception):
    """The address is, or leads to, a place that isn't the public internet. The text says how."""


class UnreadableError(Exception):
    """The site doesn't answer, or not with what fits. The text says why, without what it answered."""


def check_url(url: str, *, loopback: bool = False) -> str:
    """Return an address that may be asked for, as far as its text tells. Raises NotPublicError.

    `loopback`, in development, also lets this machine's own addresses through, without TLS and at any port.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise NotPublicError("It isn't a URL.") from None
    if not url.isascii() or not url.isprintable() or len(url) > 2000 or "\\" in url:  # noqa: PLR2004
        raise NotPublicError("It has characters that a URL has not.")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise NotPublicError("It has user info or a fragment.")
    if loopback and host in {"127.0.0.1", "::1"}:
        return url
    if parts.scheme != "https" or port not in {None, _HTTPS}:
        raise NotPublicError("It is not https at port 443.")
    if not _NAME.fullmatch(host):
        raise NotPublicError("The host is not a full name.")
    return url


class PublicSites:
    """An HTTP client for addresses that others name."""

    def __init__(self, *, loopback: bool = False, resolver: Resolve = resolve) -> None:
        self._loopback = loopback
        self._resolve = resolver

    async def read(self, url: str, *, max_bytes: int) -> bytes:
        """Return what is there. Raises NotPublicError, UnreadableError."""
        check_url(url, loopback=self._loopback)
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                return await self._read(httpx.URL(url), max_bytes)
        except TimeoutError:
            raise UnreadableError("It takes too long.") from None
        except (httpx.HTTPError, OSError):
            raise UnreadableError("It can't be reached.") from None

    async def _read(self, url: httpx.URL, max_bytes: int) -> bytes:
        address = await self._address_of(url)
        headers = {
            "Host": url.netloc.decode("ascii"),
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
        timeout = httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS)
        async with (
            httpx.AsyncClient(timeout=timeout, follow_redirects=False, trust_env=False) as http,
            http.stream(
                "GET",
                # The address that was judged; the certificate is still that of the name.
                url.copy_with(host=address),
                headers=headers,
                extensions={"sni_hostname": url.host},
            ) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise UnreadableError("It doesn't answer 200.")
            content = b""
            async for chunk in answer.aiter_raw():
                content += chunk
                if len(content) > max_bytes:
                    raise UnreadableError("It is too large.")
            return content

    async def _address_of(self, url: httpx.URL) -> str:
        addresses = await self._resolve(url.host, url.port or _HTTPS)
        allowed = self._loopback and url.host in {"127.0.0.1", "::1"}
        if not addresses or not (allowed or all(map(is_public, addresses))):
            raise NotPublicError("The name leads to an address that isn't public.")
        return addresses[0]
