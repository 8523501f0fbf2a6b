"""Passing a request on and its answer back, without looking into either.

Small bodies are held in memory, so that a request can be sent again: one that never reached its
service, or met a reference that the service doesn't know *yet* (design rule 8). Larger ones are streamed.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import orjson
from clinic_shared.deadlines import HEADER as DEADLINE_HEADER
from clinic_shared.errors import DomainError, ReferenceNotYetKnownError
from clinic_shared.problems import OUTAGE_HEADER
from multidict import CIMultiDict

from clinic_gateway.browser import without_session_cookie
from clinic_gateway.client_certificates import HEADERS as CERTIFICATE_HEADERS
from clinic_gateway.concurrency import Kind
from clinic_gateway.errors import (
    BadGatewayError,
    BodyTooLargeError,
    RequestTimeoutError,
    ServiceTimeoutError,
    UnsupportedMediaTypeError,
)
from clinic_gateway.exchange import ANSWER_HEADERS, Exchange
from clinic_gateway.guards import Guard, Guards
from clinic_gateway.retries import RETRIES, is_repeatable, pause_seconds
from clinic_gateway.routes import Body, Route
from clinic_gateway.settings import GatewaySettings
from clinic_gateway.token_exchange import TokenExchange
from clinic_gateway.upstream import Upstreams, failures_of

BUFFERED_BODY_BYTES = 256 * 1024
BUFFERED_ANSWER_BYTES = 1024 * 1024
RETRY_STEP_SECONDS = 0.05
RETRY_STEP_CAP_SECONDS = 0.2
CONFLICT = ReferenceNotYetKnownError.status
CLIENT_CLOSED_REQUEST = 499
"""As nginx counts it; nobody reads the answer."""

# RFC 9110, 7.6.1, and what proxies before us made of it.
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization"
    b" te trailer transfer-encoding upgrade".split()
)
NOT_PASSED_ON = HOP_BY_HOP | {
    b"host",
    b"expect",
    b"content-length",
    b"x-request-id",
    b"traceparent",
    b"forwarded",
    *CERTIFICATE_HEADERS,
}
NOT_PASSED_BACK = HOP_BY_HOP | {b"server", b"date", b"x-request-id", OUTAGE_HEADER.lower().encode()}
# Nobody outside may speak in the gateway's name: services must not see headers it hasn't set itself.
INTERNAL_PREFIXES = (b"x-user-", b"x-internal-", b"x-clinic-", b"x-forwarded-")

MEDIA_TYPES: dict[Body, frozenset[str]] = {
    Body.JSON: frozenset(
        (
            "application/json",
            "application/merge-patch+json",
            "application/fhir+json",
            "application/json-patch+json",
        )
    ),
    Body.FORM: frozenset(("application/x-www-form-urlencoded",)),
}
"""Where a path isn't listed, its service decides: an HL7 sender expects an HL7 answer."""


class ClientGoneError(Exception):
    """The caller hung up while sending; there is nobody to answer."""


class RequestBody:
    """The body as a stream that stops at its limit.

    The HTTP client wraps what a stream raises, so the refusal is kept here for whoever catches that.
    """

    def __init__(self, exchange: Exchange, limit_bytes: int) -> None:
        self._exchange = exchange
        self._limit_bytes = limit_bytes
        self.refusal: Exception | None = None
        self.complete = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received, more = 0, True
        while more:
            message = await self._exchange.receive()
            if message["type"] == "http.disconnect":
                self.refusal = ClientGoneError()
                raise self.refusal
            chunk: bytes = message.get("body", b"")
            received += len(chunk)
            if received > self._limit_bytes:
                self.refusal = BodyTooLargeError(max_bytes=self._limit_bytes)
                raise self.refusal
            more = message.get("more_body", False)
            if chunk:
                yield chunk
        self.complete = True

    async def read(self) -> bytes:
        """Raises RequestTimeoutError when it isn't there by the request's deadline."""
        try:
            async with asyncio.timeout(self._exchange.seconds_left):
                return b"".join([chunk async for chunk in self])
        except TimeoutError:
            raise RequestTimeoutError from None


@dataclass(frozen=True, slots=True)
class Outgoing:
    guard: Guard
    kind: Kind
    service: str
    target: str
    headers: CIMultiDict[str]


class Proxy:
    def __init__(
        self, upstreams: Upstreams, guards: Guards, settings: GatewaySettings, tokens: TokenExchange
    ) -> None:
        self._tokens = tokens
        self._upstreams = upstreams
        self._guards = guards
        self._settings = settings
        self._limits = {
            Body.LAB_MESSAGE: settings.lab_body_limit_bytes,
            Body.DOCUMENT: settings.document_body_limit_bytes,
        }

    async def pass_on(
        self, exchange: Exchange, route: Route, address: str, *, target: str | None = None
    ) -> None:
        """Send to the route's service, under another target if given, and answer what it answers.

        Raises DomainError while nothing has been answered yet; a later one means a cut-off answer.
        """
        exchange.deadline_at = exchange.started_at + self._seconds_for(route)
        guard = self._guards.of(route)
        guard.begin()
        headers = request_headers(exchange, address)
        self._tokens.apply(headers, exchange.caller_token, route.service)
        if exchange.certificate is not None:
            self._tokens.vouch(headers, exchange.certificate, route.service)
        kind = (route.prefix, exchange.method)
        request = Outgoing(guard, kind, route.service, target or exchange.target, headers)
        if not exchange.has_body:
            await self._send_buffered(exchange, request, None)
            return
        body = self._open_body(exchange, route)
        try:
            if self._is_buffered(exchange):
                await self._send_buffered(exchange, request, await body.read())
            else:
                await self._send_stream(exchange, request, body)
        except ClientGoneError:
            exchange.status = CLIENT_CLOSED_REQUEST
        except DomainError:
            if isinstance(body.refusal, DomainError):
                raise body.refusal from None
            if not isinstance(body.refusal, ClientGoneError):
                raise
            exchange.status = CLIENT_CLOSED_REQUEST

    def _seconds_for(self, route: Route) -> float:
        if route.intake:
            return self._settings.intake_deadline_seconds
        if route.body is Body.DOCUMENT:
            return self._settings.document_deadline_seconds
        return self._settings.deadline_seconds

    def _open_body(self, exchange: Exchange, route: Route) -> RequestBody:
        accepted = MEDIA_TYPES.get(route.body)
        given = exchange.headers.get(b"content-type", b"").decode("latin-1")
        if accepted is not None and media_type_of(given) not in accepted:
            raise UnsupportedMediaTypeError(supported=sorted(accepted))
        limit = self._limits.get(route.body, self._settings.body_limit_bytes)
        if (exchange.content_length or 0) > limit:
            raise BodyTooLargeError(max_bytes=limit)
        return RequestBody(exchange, limit)

    def _is_buffered(self, exchange: Exchange) -> bool:
        length = exchange.content_length
        return length is not None and length <= BUFFERED_BODY_BYTES

    async def _send_stream(self, exchange: Exchange, request: Outgoing, body: RequestBody) -> None:
        """Send a body as it comes. It takes no place: it would hold it for as long as its sender likes."""
        if exchange.content_length is not None:
            request.headers["Content-Length"] = str(exchange.content_length)
        try:
            with request.guard.attempt(lambda: body.complete) as attempt, failures_of(request.service):
                async with await self._send(exchange, request, aiter(body)) as answer:
                    attempt.answered(answer)
                    await pass_back(exchange, answer)
        except ServiceTimeoutError:
            if body.complete:
                raise
            raise RequestTimeoutError from None

    async def _send_buffered(self, exchange: Exchange, request: Outgoing, data: bytes | None) -> None:
        """Send, and send again what failed without effect or waits for an event that is under way."""
        retry, wait = 0, RETRY_STEP_SECONDS
        patient_until = time.monotonic() + self._settings.reference_retry_seconds
        while True:
            try:
                if await self._sent(exchange, request, data, patient=time.monotonic() + wait < patient_until):
                    return
                pause, wait = wait, min(wait * 1.5, RETRY_STEP_CAP_SECONDS)
            except DomainError as error:
                if exchange.status or retry == RETRIES or not is_repeatable(exchange, error):
                    raise
                if not request.guard.may_repeat(request.guard.retries, "failure"):
                    raise
                pause = pause_seconds(retry)
                retry += 1
            await asyncio.sleep(pause)

    async def _sent(
        self, exchange: Exchange, request: Outgoing, data: bytes | None, *, patient: bool
    ) -> bool:
        """Send once and pass the answer back; False when it is worth the wait to send again."""
        guard = request.guard
        with guard.attempt() as attempt, failures_of(request.service):
            await attempt.take_place(request.kind, exchange.seconds_left)
            async with await self._send(exchange, request, data) as answer:
                attempt.answered(answer)
                if (
                    patient
                    and answer.status == CONFLICT
                    and await says_not_yet_known(answer)
                    and guard.may_repeat(guard.waits, "reference")
                ):
                    return False
                await pass_back(exchange, answer)
                return True

    async def _send(
        self, exchange: Exchange, request: Outgoing, data: bytes | AsyncIterator[bytes] | None
    ) -> aiohttp.ClientResponse:
        """Return the answer once it begins, within what is left of the request's time.

        Only once it begins: a large answer may go on for as long as it moves.
        """
        left = exchange.seconds_left
        request.headers[DEADLINE_HEADER] = str(int(left * 1000))
        async with asyncio.timeout(left):
            return await self._upstreams.send(
                request.service, exchange.method, request.target, headers=request.headers, data=data
            )


def request_headers(exchange: Exchange, address: str) -> CIMultiDict[str]:
    dropped = NOT_PASSED_ON | named_by_connection(exchange.headers.get(b"connection", b""))
    headers = CIMultiDict(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in exchange.scope["headers"]
        if name not in dropped and not name.startswith(INTERNAL_PREFIXES)
    )
    if "Cookie" in headers:
        headers["Cookie"] = without_session_cookie("; ".join(headers.popall("Cookie")))
    headers["X-Request-Id"] = exchange.request_id
    headers["Traceparent"] = exchange.span.traceparent
    headers["X-Forwarded-For"] = address
    headers["X-Forwarded-Host"] = exchange.headers[b"host"].decode("latin-1")
    headers["X-Forwarded-Proto"] = str(exchange.scope["scheme"])
    return headers


def named_by_connection(value: bytes) -> set[bytes]:
    return {name.strip().lower() for name in value.split(b",")} if value else set()


def media_type_of(content_type: str) -> str:
    return content_type.split(";", 1)[0].strip().lower()


async def says_not_yet_known(answer: aiohttp.ClientResponse) -> bool:
    """Tell whether this 409 is for a reference whose event hasn't arrived (design rule 8)."""
    if not answer.content_length or answer.content_length > BUFFERED_BODY_BYTES:
        return False
    try:
        problem = orjson.loads(await answer.read())
    except orjson.JSONDecodeError:
        return False
    kind = problem.get("type") if isinstance(problem, dict) else None
    return isinstance(kind, str) and kind.rsplit("/", 1)[-1] == ReferenceNotYetKnownError.slug


async def pass_back(exchange: Exchange, answer: aiohttp.ClientResponse) -> None:
    headers = answer_headers(answer)
    length = answer.content_length
    if length is not None and length <= BUFFERED_ANSWER_BYTES:
        body = await answer.read()
        await exchange.start(answer.status, headers)
        await exchange.finish(body)
        return
    await exchange.start(answer.status, headers)
    try:
        async for chunk in answer.content.iter_any():
            await exchange.send({"type": "http.response.body", "body": chunk, "more_body": True})
    except aiohttp.ClientError as error:
        # Half of the answer is out: leaving it unfinished makes the server close the connection,
        # which is the only way to tell the caller.
        raise BadGatewayError from error
    await exchange.finish(b"")


def answer_headers(answer: aiohttp.ClientResponse) -> list[tuple[bytes, bytes]]:
    dropped = NOT_PASSED_BACK | named_by_connection(answer.headers.get("Connection", "").encode("latin-1"))
    headers = [(name.lower(), value) for name, value in answer.raw_headers]
    headers = [(name, value) for name, value in headers if name not in dropped]
    given = {name for name, _ in headers}
    headers += [pair for pair in ANSWER_HEADERS if pair[0] not in given]
    if b"cache-control" not in given:
        headers.append((b"cache-control", b"no-store"))
    return headers
