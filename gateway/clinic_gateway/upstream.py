"""Requests to the services: one pool of connections per service, and what a failure means to the caller."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from clinic_shared import tracing
from multidict import CIMultiDict
from yarl import URL

from clinic_gateway.errors import BadGatewayError, NotInstalledError, ServiceDownError, ServiceTimeoutError
from clinic_gateway.settings import GatewaySettings

# Below the 5 s after which the services' server closes idle connections: a request must not
# meet a connection that is being closed.
IDLE_CONNECTION_SECONDS = 4


class Upstreams:
    """The installed services. Opened and closed with the application."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.urls: Mapping[str, str] = settings.upstream_urls
        self._settings = settings
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    def __contains__(self, service: str) -> bool:
        return service in self.urls

    def open(self) -> None:
        self._sessions = {service: self._session() for service in self.urls}

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    def _session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._settings.connections_per_upstream, keepalive_timeout=IDLE_CONNECTION_SECONDS
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
        data: bytes | AsyncIterator[bytes] | None = None,
        timeout_seconds: float | None = None,
        answer_within_seconds: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask a service; `target` is path and query, already percent-encoded.

        The answer must begin within `answer_within_seconds` and be over within `timeout_seconds`.

        Raises NotInstalledError, ServiceDownError (it wasn't reached), ServiceTimeoutError and
        BadGatewayError (it may have done it), never an error that carries the URL.
        """
        if service not in self.urls:
            raise NotInstalledError(service=service)
        url = URL(self.urls[service] + target, encoded=True)
        timeout = (
            aiohttp.ClientTimeout(total=timeout_seconds) if timeout_seconds else aiohttp.helpers.sentinel
        )
        with tracing.calling(service) as span:
            if span.traceparent:
                # A copy: the same headers may go to several services at once.
                headers = CIMultiDict(headers or ())
                headers["Traceparent"] = span.traceparent
            sending = self._sessions[service].request(
                method, url, headers=headers, data=data, allow_redirects=False, timeout=timeout
            )
            try:
                # Not the whole exchange: a large answer may go on for as long as it moves.
                async with asyncio.timeout(answer_within_seconds):
                    answer = await sending
                span.answered(method, None, answer.status)
                async with answer:
                    yield answer
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                raise ServiceDownError(service=service) from error
            except (TimeoutError, aiohttp.ServerTimeoutError) as error:
                raise ServiceTimeoutError(service=service) from error
            except aiohttp.ClientError as error:
                raise BadGatewayError(service=service) from error
