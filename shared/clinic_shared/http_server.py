"""Serving HTTP so that nobody is cut off when the process is told to stop.

First it drains: `/readyz` says no, requests are still taken, and every answer asks its client to close
the connection, so that nobody sends a request into a connection that is being closed. Then nothing
new is accepted, and what is under way gets its time to finish.
"""

import asyncio
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

import structlog
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from clinic_shared.health import Health

log = structlog.get_logger()

DRAIN_SECONDS = 1.0
"""Long enough for a steady client to use, and then close, each of its connections."""
GRACE_SECONDS = 25.0
"""With the draining still below the 30 s that Kubernetes waits before it kills."""
LAST_REQUESTS_SECONDS = 0.25
_CLOSE = (b"connection", b"close")
CLIENT_CERTIFICATE = "clinic.client_certificate"
"""In `scope["extensions"]`: what the client has shown on this connection, in DER."""


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Where to serve, and how patiently to end. With `tls`, HTTPS."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    drain_seconds: float = DRAIN_SECONDS
    grace_seconds: float = GRACE_SECONDS


class _Server(uvicorn.Server):
    """Uvicorn without signal handlers of its own: one stop event ends everything in order."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def close_after_answers(self) -> None:
        """Let each connection end with its next answer, those under way included."""
        self.config.encoded_headers.append(_CLOSE)
        self.server_state.default_headers.append(_CLOSE)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        # Who has connected a moment ago has a request on its way; now nobody else can.
        await asyncio.sleep(LAST_REQUESTS_SECONDS)
        await super().shutdown(sockets)


class _AskingProtocol(HttpToolsProtocol):
    """Uvicorn's, which keeps to itself what clients show."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if shown is not None:
            self.app = partial(_with_certificate, self.app, shown)


async def _with_certificate(app: ASGIApp, shown: bytes, scope: Scope, receive: Receive, send: Send) -> None:
    scope["extensions"] = {**scope.get("extensions", {}), CLIENT_CERTIFICATE: shown}
    await app(scope, receive, send)


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def serve_http(app: ASGIApp, listening: Listening, *, stop: asyncio.Event, health: Health) -> None:
    """Serve until told to stop, and then until everything begun is answered.

    Sets `stop` itself when the server ends on its own (its port is in use).
    """
    tls = listening.tls
    server = _Server(
        uvicorn.Config(
            app,
            host=listening.host,
            port=listening.port,
            http=_AskingProtocol if tls is not None and tls.verify_mode else HttpToolsProtocol,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            # Whom to believe about the client is decided by the application, not by who connects.
            proxy_headers=False,
            timeout_graceful_shutdown=int(listening.grace_seconds),
            ssl_context_factory=None if tls is None else lambda _config, _default: tls,
        )
    )
    serving = asyncio.create_task(server.serve())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    health.stopping.set()
    if not serving.done() and server.started:
        log.info("draining", pending=len(server.server_state.tasks))
        server.close_after_answers()
        await asyncio.wait({serving}, timeout=listening.drain_seconds)
    server.should_exit = True
    await serving
    stop.set()
