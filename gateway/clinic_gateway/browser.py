"""Browsers: a cookie in place of a token, which the gateway exchanges at identity and never hands out.

What a browser sends by itself proves nothing about who made it do so: whatever changes something needs the CSRF
token besides, and comes from a page of this site.
"""

import asyncio
import hmac
import time
from collections import OrderedDict
from urllib.parse import urlsplit

import orjson
from clinic_shared import browser_cookie
from clinic_shared.errors import TemporarilyUnavailableError, UnauthenticatedError
from multidict import CIMultiDict

from clinic_gateway.errors import ForgedRequestError, TokenNotHandedOutError, TwoCredentialsError
from clinic_gateway.exchange import Exchange
from clinic_gateway.tokens import expires_at
from clinic_gateway.upstream import Upstreams, failures_of

EXCHANGE = "/internal/browser-sessions/token"
MAX_KEPT = 8192
KEPT_SECONDS = 60
"""So long a token is used before identity is asked again, and hears that the session is in use."""
RENEWED_BEFORE_SECONDS = 30
_ASK_SECONDS = 5.0
READ_ONLY = frozenset(("GET", "HEAD", "OPTIONS"))
_HANDS_OUT_TOKENS = frozenset(("/v1/auth/step-up",))
"""Of the paths that need a token."""
_OK, _UNAUTHORIZED = 200, 401


def cookie_of(exchange: Exchange) -> str | None:
    """Return the session cookie. Raises TwoCredentialsError for a request that has a token too, or two cookies."""
    if b"cookie" not in exchange.headers:
        return None
    values: list[str] = [
        value
        for name, header in exchange.scope["headers"]
        if name == b"cookie"
        for pair in header.decode("latin-1").split(";")
        for known, _, value in (pair.strip().partition("="),)
        if known == browser_cookie.NAME
    ]
    if not values:
        return None
    if len(values) > 1 or b"authorization" in exchange.headers:
        raise TwoCredentialsError
    return values[0]


def without_session_cookie(header: str) -> str:
    """Return the other cookies: no service needs to see this one."""
    pairs = (pair.strip() for pair in header.split(";"))
    return "; ".join(pair for pair in pairs if pair and pair.partition("=")[0] != browser_cookie.NAME)


def require_own_page(exchange: Exchange) -> None:
    """Refuse what a page of another site makes a browser send. Raises ForgedRequestError.

    Browsers say where a request comes from; whatever says nothing is none.
    """
    site = exchange.headers.get(b"sec-fetch-site")
    if site is not None:
        # `none` is the person themselves: the address bar, a bookmark.
        if site != b"same-origin" and not (site == b"none" and exchange.method in READ_ONLY):
            raise ForgedRequestError
        return
    origin = exchange.headers.get(b"origin")
    if origin is not None and urlsplit(origin.decode("latin-1")).netloc.encode() != exchange.headers[b"host"]:
        raise ForgedRequestError


def require_csrf_token(exchange: Exchange, cookie: str) -> None:
    """Raises ForgedRequestError."""
    if exchange.method in READ_ONLY:
        return
    given = exchange.headers.get(browser_cookie.CSRF_HEADER.lower().encode(), b"")
    wanted = browser_cookie.csrf_token_of(browser_cookie.digest_of(cookie)).encode()
    if not hmac.compare_digest(given, wanted):
        raise ForgedRequestError


class BrowserSessions:
    """The tokens behind cookies. Of many requests of one browser at once, one asks identity."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self._kept: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[str]] = {}

    async def token_of(self, exchange: Exchange, cookie: str, address: str) -> str:
        """Return the access token of a cookie's session.

        Raises ForgedRequestError, TokenNotHandedOutError, UnauthenticatedError, TemporarilyUnavailableError.
        """
        require_own_page(exchange)
        require_csrf_token(exchange, cookie)
        if exchange.path in _HANDS_OUT_TOKENS:
            raise TokenNotHandedOutError
        digest = browser_cookie.digest_of(cookie)
        kept = self._kept.get(digest)
        if kept is not None and time.time() < kept[0]:
            self._kept.move_to_end(digest)
            return kept[1]
        if digest not in self._asking:
            asking = asyncio.create_task(self._ask(digest, cookie, address))
            asking.add_done_callback(lambda _: self._asking.pop(digest, None))
            self._asking[digest] = asking
        # Shielded: whoever hangs up doesn't take the answer from those who wait for it too.
        return await asyncio.shield(self._asking[digest])

    def forget(self, cookie: str) -> None:
        """Ask anew next time: the token that was kept doesn't count any more."""
        self._kept.pop(browser_cookie.digest_of(cookie), None)

    async def _ask(self, digest: bytes, cookie: str, address: str) -> str:
        headers = CIMultiDict({"Content-Type": "application/json", "X-Forwarded-For": address})
        body = orjson.dumps({"cookie": cookie})
        with failures_of("identity"):
            async with asyncio.timeout(_ASK_SECONDS):
                answer = await self._upstreams.send("identity", "POST", EXCHANGE, headers=headers, data=body)
                async with answer:
                    status, content = answer.status, await answer.read()
        if status == _UNAUTHORIZED:
            raise UnauthenticatedError("The session has ended.")
        if status != _OK:
            raise TemporarilyUnavailableError
        token: str = orjson.loads(content)["access_token"]
        self._keep(digest, token)
        return token

    def _keep(self, digest: bytes, token: str) -> None:
        until = min(time.time() + KEPT_SECONDS, expires_at(token) - RENEWED_BEFORE_SECONDS)
        self._kept[digest] = (until, token)
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
