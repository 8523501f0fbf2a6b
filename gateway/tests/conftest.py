"""A gateway on a real port, before services that are real servers and do what a test tells them."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
import uvicorn
from clinic_gateway.app import create_app
from clinic_gateway.settings import GatewaySettings
from clinic_gateway.tokens import Revocations
from clinic_shared.auth import TokenSigner, TokenVerifier, claims_of
from clinic_shared.principal import Principal
from starlette.types import ASGIApp, Receive, Scope, Send

ISSUER = "https://clinic.test"
SIGNER = TokenSigner.generate(issuer=ISSUER)
UNLIMITED = {"rate_address_per_second": 0, "rate_subject_per_second": 0, "rate_sign_in_per_second": 0}


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=1)
    config.proxy_headers = config.server_header = False
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not task.done():  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


@dataclass
class Seen:
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for known, value in self.headers if known == name), None)


@dataclass
class Reply:
    status: int = 200
    document: Any = None
    body: bytes | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    chunks: list[bytes] | None = None
    """Sent one by one, without a length."""
    break_off: bool = False
    """Close the connection where the last chunk should come."""
    wait_for: asyncio.Event | None = None
    wait_between: asyncio.Event | None = None
    """What each chunk but the first waits for."""


Answer = Callable[[Seen], Reply | Awaitable[Reply]]


class Service:
    """An upstream: remembers requests, answers the queued replies, then `{"service": its name}`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[Seen] = []
        self.replies: list[Reply] = []
        self.pages: dict[str, Reply | Callable[[Seen], Reply]] = {
            "/healthz": Reply(document={"status": "ok"}),
            "/internal/revocations": Reply(document={"revocations": []}),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
        query = scope["query_string"].decode()
        target = scope["raw_path"].decode() + (f"?{query}" if query else "")
        page = self.pages.get(scope["path"])
        seen = Seen(scope["method"], target, headers, body)
        if callable(page):
            page = page(seen)
        if page is None:
            self.seen.append(seen)
            page = self.replies.pop(0) if self.replies else Reply(document={"service": self.name})
        await self._send(page, send)

    async def _send(self, reply: Reply, send: Send) -> None:
        if reply.wait_for is not None:
            await reply.wait_for.wait()
        headers = [(name.encode(), value.encode()) for name, value in reply.headers]
        content = json.dumps(reply.document).encode() if reply.body is None else reply.body
        if reply.chunks is None:
            headers.append((b"content-length", str(len(content)).encode()))
            if reply.body is None:
                headers.append((b"content-type", b"application/json"))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        for number, chunk in enumerate(reply.chunks or []):
            if number and reply.wait_between is not None:
                await reply.wait_between.wait()
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if not reply.break_off:
            await send({"type": "http.response.body", "body": b"" if reply.chunks else content})


@dataclass
class Clinic:
    http: httpx.AsyncClient
    services: dict[str, Service]
    revocations: Revocations
    urls: dict[str, str]

    def __getitem__(self, name: str) -> Service:
        return self.services[name]


Bearer = Callable[..., dict[str, str]]
StartClinic = Callable[..., AbstractAsyncContextManager[Clinic]]


def token_of(**changes: Any) -> str:
    claims: dict[str, Any] = {"subject": uuid4(), "kind": "staff", **changes}
    principal = Principal(**claims)
    return SIGNER.sign(claims_of(principal, issued_at=datetime.now(UTC)))


def bearer(**changes: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {token_of(**changes)}"}


def dead_url() -> str:
    """Return an address where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@asynccontextmanager
async def running_clinic(
    *names: str,
    down: tuple[str, ...] = (),
    verifier: object = "test",
    reread: Callable[[], GatewaySettings] | None = None,
    revoked: Reply | None = None,
    **settings: Any,
) -> AsyncIterator[Clinic]:
    async with AsyncExitStack() as stack:
        services = {name: Service(name) for name in names}
        if revoked is not None:
            services["identity"].pages["/internal/revocations"] = revoked
        urls = {name: await stack.enter_async_context(serving(one)) for name, one in services.items()}
        urls |= {name: dead_url() for name in down}
        given = UNLIMITED | {
            "environment": "test",
            "token_issuer": ISSUER,
            "upstreams": ",".join(f"{name}={url}" for name, url in urls.items()),
            "contracts_dir": "/nonexistent",
        }
        if verifier == "test":
            verifier = TokenVerifier.static(SIGNER.public_jwks(), issuer=ISSUER)
        revocations = Revocations()
        app = create_app(
            GatewaySettings.model_validate(given | settings),
            verifier=verifier,  # type: ignore[arg-type]
            revocations=revocations,
            reread=reread,
        )
        url = await stack.enter_async_context(serving(app))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=30))
        yield Clinic(http, services, revocations, urls)


@pytest.fixture(scope="session")
async def shared_clinic() -> AsyncIterator[Clinic]:
    names = ("identity", "patients", "scheduling", "notifications", "billing", "lab-integration")
    async with running_clinic(*names, down=("referrals",)) as clinic:
        yield clinic


@pytest.fixture
def clinic(shared_clinic: Clinic) -> Clinic:
    """One running clinic for all tests that need no settings of their own."""
    for service in shared_clinic.services.values():
        service.seen.clear()
        service.replies.clear()
    return shared_clinic


@pytest.fixture
def start_clinic() -> StartClinic:
    return running_clinic


@pytest.fixture(name="bearer")
def bearer_fixture() -> Bearer:
    return bearer


@pytest.fixture
def reply() -> type[Reply]:
    return Reply


@pytest.fixture
def jwks() -> dict[str, Any]:
    return SIGNER.public_jwks()
