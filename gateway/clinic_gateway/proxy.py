"""Passing a request on and its answer back, without looking into either.

Small JSON bodies are held in memory, so that a request which met a reference its service doesn't
know *yet* can be sent again (design rule 8); everything larger is streamed.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import orjson
from clinic_shared.errors import DomainError, ReferenceNotYetKnownError
from multidict import CIMultiDict

from clinic_gateway.errors import BadGatewayError, BodyTooLargeError, UnsupportedMediaTypeError
from clinic_gateway.exchange import ANSWER_HEADERS, Exchange
from clinic_gateway.routes import Body, Route
from clinic_gateway.settings import GatewaySettings
from clinic_gateway.upstream import Upstreams

BUFFERED_BODY_BYTES = 256 * 1024
BUFFERED_ANSWER_BYTES = 1024 * 1024
RETRY_STEP_SECONDS = 0.05
RETRY_STEP_CAP_SECONDS = 0.2
CONFLICT = ReferenceNotYetKnownError.status

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
}
NOT_PASSED_BACK = HOP_BY_HOP | {b"server", b"date", b"x-request-id"}
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

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self])


@dataclass(frozen=True, slots=True)
class Outgoing:
    service: str
    target: str
    headers: CIMultiDict[str]


class Proxy:
    def __init__(self, upstreams: Upstreams, settings: GatewaySettings) -> None:
        self._upstreams = upstreams
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
        request = Outgoing(route.service, target or exchange.target, request_headers(exchange, address))
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
            exchange.status = 499
        except DomainError:
            if isinstance(body.refusal, DomainError):
                raise body.refusal from None
            if not isinstance(body.refusal, ClientGoneError):
                raise
            exchange.status = 499  # as nginx counts it; nobody reads the answer

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
        if exchange.content_length is not None:
            request.headers["Content-Length"] = str(exchange.content_length)
        async with self._upstreams.request(
            request.service, exchange.method, request.target, headers=request.headers, data=aiter(body)
        ) as answer:
            await pass_back(exchange, answer)

    async def _send_buffered(self, exchange: Exchange, request: Outgoing, data: bytes | None) -> None:
        """Send, and send again while the service waits for an event that is already on its way."""
        loop = asyncio.get_running_loop()
        give_up_at, step = loop.time() + self._settings.reference_retry_seconds, RETRY_STEP_SECONDS
        while True:
            async with self._upstreams.request(
                request.service, exchange.method, request.target, headers=request.headers, data=data
            ) as answer:
                patience = loop.time() + step < give_up_at
                if not (patience and answer.status == CONFLICT and await says_not_yet_known(answer)):
                    await pass_back(exchange, answer)
                    return
            await asyncio.sleep(step)
            step = min(step * 1.5, RETRY_STEP_CAP_SECONDS)


def request_headers(exchange: Exchange, address: str) -> CIMultiDict[str]:
    dropped = NOT_PASSED_ON | named_by_connection(exchange.headers.get(b"connection", b""))
    headers = CIMultiDict(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in exchange.scope["headers"]
        if name not in dropped and not name.startswith(INTERNAL_PREFIXES)
    )
    headers["X-Request-Id"] = exchange.request_id
    headers["Traceparent"] = exchange.traceparent
    headers["X-Forwarded-For"] = address
    headers["X-Forwarded-Host"] = exchange.headers[b"host"].decode("latin-1")
    headers["X-Forwarded-Proto"] = str(exchange.scope["scheme"])
    return headers


def named_by_connection(value: bytes) -> set[bytes]:
    return {name.strip().lower() for name in value.split(b",")} if value else set()


def media_type_of(content_type: str) -> str:
    return content_type.split(";", 1)[0].strip().lower()


async def says_not_yet_known(answer: aiohttp.ClientResponse) -> bool:
    if answer.content_length is None or answer.content_length > BUFFERED_BODY_BYTES:
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
