"""The `clinic` command as an operator runs it, and a small deployment to run it against.

The deployment is the real gateway before two real services; only signing in is played by the test.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import structlog
from clinic_gateway.app import create_app as create_gateway
from clinic_gateway.settings import GatewaySettings
from clinic_local import cli
from clinic_local.fakes.in_process import serving
from clinic_referrals.app import service as referrals
from clinic_scheduling.app import service as scheduling
from clinic_shared import contracts
from clinic_shared.app import create_app
from clinic_shared.auth import TokenSigner, TokenVerifier, claims_of
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.service import Service
from clinic_shared.testing import ISSUER, FixedClock, Servers, ServiceHarness, harness
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

LOGIN, PASSWORD = "operator@example.org", "a-fictitious-password"
ROLES = {
    LOGIN: "system-administrator",
    "colleague@example.org": "system-administrator",
    "steward@example.org": "data-steward",
}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def words(self) -> list[list[str]]:
        """The words of each line that was printed."""
        return [line.split() for line in self.out.splitlines()]


Clinic = Callable[..., Awaitable[Ended]]


@pytest.fixture
def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clinic:
    """Return a function that runs a `clinic` command on a machine where nothing runs."""
    for name in os.environ:
        if name.startswith("CLINIC_") and "TEST" not in name:
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLINIC_ROOT", str(tmp_path))

    def run(arguments: tuple[str, ...]) -> Ended:
        out, err, status = StringIO(), StringIO(), 0
        monkeypatch.setattr(sys, "argv", ["clinic", *arguments])
        with redirect_stdout(out), redirect_stderr(err):
            try:
                cli.main()
            except SystemExit as ended:
                status = int(ended.code or 0)
        return Ended(status, out.getvalue(), err.getvalue())

    async def clinic(*arguments: object) -> Ended:
        return await asyncio.to_thread(run, tuple(str(argument) for argument in arguments))

    return clinic


@dataclass(frozen=True)
class Deployment:
    """A gateway and two services behind it, each of which can be stopped."""

    url: str
    services: Mapping[str, ServiceHarness]
    _servers: Mapping[str, AsyncExitStack]

    async def stop(self, name: str) -> None:
        """Stop listening: what a crashed process looks like from outside."""
        await self._servers[name].aclose()

    def __getitem__(self, name: str) -> ServiceHarness:
        return self.services[name]


def _identity(signer: TokenSigner, clock: FixedClock) -> Starlette:
    scopes = {login: frozenset(contracts.scopes_by_role()[role]) for login, role in ROLES.items()}
    staff = {
        login: Principal(subject=uuid7(), kind="staff", network=True, scopes=granted)
        for login, granted in scopes.items()
    }

    async def login(request: Request) -> JSONResponse:
        given = await request.json()
        if given["login"] not in staff or given["password"] != PASSWORD:
            return JSONResponse({"detail": "no"}, 401, media_type="application/problem+json")
        who = staff[given["login"]]
        token = signer.sign(claims_of(who, issued_at=clock.now(), lifetime_seconds=300))
        return JSONResponse({"access_token": token, "expires_in": 300})

    async def nobody(_: Request) -> JSONResponse:
        return JSONResponse({"revocations": []})

    async def nothing(_: Request) -> JSONResponse:
        empty: dict[str, Any] = {name: [] for name in ("items", "interfaces", "groups", "runs", "decisions")}
        return JSONResponse(empty | {"next_cursor": None})

    return Starlette(
        routes=[
            Route("/v1/auth/login", login, methods=["POST"]),
            Route("/internal/revocations", nobody),
            Route("/v1/ops/{page}", nothing),
        ]
    )


def _gateway(upstreams: Mapping[str, str], signer: TokenSigner, clock: FixedClock) -> ASGIApp:
    settings = GatewaySettings(
        environment="test",
        token_issuer=ISSUER,
        upstreams=",".join(f"{name}={url}" for name, url in upstreams.items()),
    )
    verifier = TokenVerifier.static(signer.public_jwks(), issuer=ISSUER, audience="clinic-api", clock=clock)
    return create_gateway(settings, verifier=verifier)


@pytest.fixture
def silent_services() -> Iterator[None]:
    """Keep the log lines of services in this process out of what a command in this process prints."""
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.configure(**before)


@pytest.fixture
async def deployment(
    silent_services: None,
    servers: Servers,
    database_of: Callable[[Service], str],
    signer: TokenSigner,
    clinic: Clinic,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Deployment]:
    """Start a deployment that the operator's commands talk to."""
    clock = FixedClock(datetime.now(UTC))
    listening: dict[str, AsyncExitStack] = {}
    async with AsyncExitStack() as stack:

        async def serve(name: str, app: ASGIApp) -> str:
            listening[name] = await stack.enter_async_context(AsyncExitStack())
            return await listening[name].enter_async_context(serving(app))

        services: dict[str, ServiceHarness] = {}
        upstreams = {"identity": await serve("identity", _identity(signer, clock))}
        for service in (scheduling, referrals):
            made = await stack.enter_async_context(
                harness(
                    service,
                    database_url=database_of(service),
                    amqp_url=servers.amqp_url,
                    signer=signer,
                    clock=clock,
                )
            )
            services[service.name] = made
            upstreams[service.name] = await serve(service.name, create_app(service, made.runtime))
        url = await serve("gateway", _gateway(upstreams, signer, clock))
        monkeypatch.setenv("CLINIC_URL", url)
        monkeypatch.setenv("CLINIC_LOGIN", LOGIN)
        monkeypatch.setenv("CLINIC_PASSWORD", PASSWORD)
        yield Deployment(url, services, listening)
