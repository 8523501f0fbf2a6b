"""Requests to the services: one pool of connections per service, and what a failure means to the caller."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import aiohttp
from clinic_shared import tls, tracing
from multidict import CIMultiDict
from yarl import URL

from clinic_gateway.errors import BadGatewayError, NotInstalledError, ServiceDownError, ServiceTimeoutError
from clinic_gateway.settings import GatewaySettings

# Below the 5 s after which the services' server closes idle connections: a request must not
# meet a connection that is being closed.
IDLE_CONNECTION_SECONDS = 4
DEFAULT = aiohttp.helpers.sentinel


class Upstreams:
    """The installed services. Opened and closed with the application."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.urls: Mapping[str, str] = settings.upstream_urls
        self._settings = settings
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._trust = tls.Trust(settings.tls_authority_file)

    def __contains__(self, service: str) -> bool:
        return service in self.urls

    def open(self) -> None:
        self._sessions = {service: self._session() for service in self.urls}

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    def _session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._settings.connections_per_upstream,
            keepalive_timeout=IDLE_CONNECTION_SECONDS,
        )
        timeout = aiohttp.ClientTimeout(
            connect=self._settings.connect_timeout_seconds,
            sock_read=self._settings.answer_timeout_seconds,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )
        # By itself it would send PUT and DELETE again too, and outside any budget.
        session._retry_connection = False  # noqa: SLF001  # there is no public way to say so
        return session

    @asynccontextmanager
    async def request(
        self,
        service: str,
        method: str,
        target: str,
        *,
        headers: CIMultiDict[str] | None = None,
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask a service for what the gateway itself wants to know; as `send`, within `timeout_seconds` in all."""
        with failures_of(service):
            timeout = aiohttp.ClientTimeout(total=timeout_seconds) if timeout_seconds else DEFAULT
            async with await self.send(service, method, target, headers=headers, timeout=timeout) as answer:
                yield answer

    async def send(
        self,
        service: str,
        method: str,
        target: str,
        *,
        headers: CIMultiDict[str] | None = None,
        data: bytes | AsyncIterator[bytes] | None = None,
        timeout: aiohttp.ClientTimeout | Any = DEFAULT,  # noqa: ASYNC109  # the client's own settings
    ) -> aiohttp.ClientResponse:
        """Send a request and return the answer once it begins; `target` is path and query, percent-encoded.

        To be used within `failures_of`, which says what is raised. Raises NotInstalledError.
        """
        if service not in self.urls:
            raise NotInstalledError(service=service)
        url = URL(self.urls[service] + target, encoded=True)
        with tracing.calling(service) as span:
            if span.traceparent:
                # A copy: the same headers may go to several services at once.
                headers = CIMultiDict(headers or ())
                headers["Traceparent"] = span.traceparent
            answer = await self._sessions[service].request(
                method,
                url,
                headers=headers,
                data=data,
                allow_redirects=False,
                timeout=timeout,
                ssl=self._trust.context,
            )
            span.answered(method, None, answer.status)
            return answer


class failures_of:  # noqa: N801  # used like a function
    """Raises ServiceDownError (it wasn't reached), ServiceTimeoutError and BadGatewayError (it may have
    done it) for what the HTTP client raises, whose own errors carry the URL.

    A class, since a generator would cost as much again as what it stands around.
    """

    __slots__ = ("_service",)

    def __init__(self, service: str) -> None:
        self._service = service

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            raise ServiceDownError(service=self._service) from error
        if isinstance(error, TimeoutError):
            raise ServiceTimeoutError(service=self._service) from error
        if isinstance(error, aiohttp.ClientError):
            raise BadGatewayError(service=self._service) from error
