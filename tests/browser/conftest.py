"""Chromium before a real gateway and a real identity, at an address whose pages may ask for passkeys."""

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from clinic_gateway.app import create_app as create_gateway
from clinic_gateway.settings import GatewaySettings
from clinic_gateway.tokens import Revocations
from clinic_identity.app import service as identity_service
from clinic_local.chromium import Chromium
from clinic_local.errors import SetupError
from clinic_local.fakes.in_process import bound_to_a_free_port, serving
from clinic_shared.app import create_app
from clinic_shared.auth import TokenSigner, TokenVerifier
from clinic_shared.service import Service
from clinic_shared.testing import ISSUER, FixedClock, Servers, ServiceHarness, harness

from .chromium import Browser, Page, running

ADMIN_LOGIN = "admin@example.org"
ADMIN_PASSWORD = "only-for-these-tests"
SITE = "localhost"
_CHEAP = {"password_iterations": 1, "password_memory_kib": 8, "password_threads": 2}
_UNLIMITED = {f"rate_{what}_per_second": 0 for what in ("address", "subject", "sign_in")}


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    try:
        chromium = Chromium.found_or_unpacked()
    except SetupError as error:
        pytest.skip(f"no Chromium on this machine: {error.report()}")
    with tempfile.TemporaryDirectory(prefix="clinic-chromium-", ignore_cleanup_errors=True) as folder:
        async with running(chromium, Path(folder)) as started:
            yield started


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    async with browser.page() as opened:
        yield opened


@pytest.fixture
def clock() -> FixedClock:
    """The browser's own time, standing still: cookies are judged by it."""
    return FixedClock(datetime.now(UTC))


@dataclass
class Clinic:
    """A gateway with identity behind it."""

    url: str
    other_url: str
    """The same gateway at another port: another origin."""
    identity: ServiceHarness
    http: httpx.AsyncClient = field(repr=False)

    async def post(self, path: str, body: Any = None, token: str | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return await self.http.post(path, json={} if body is None else body, headers=headers)

    async def session_of(self, login: str = ADMIN_LOGIN, password: str = ADMIN_PASSWORD) -> str:
        """Log in with the password alone and return the access token."""
        answer = await self.post("/v1/auth/login", {"login": login, "password": password})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def ticket_of(self, login: str = ADMIN_LOGIN, password: str = ADMIN_PASSWORD) -> str:
        answer = await self.post("/v1/auth/login", {"login": login, "password": password})
        assert (answer.status_code, answer.json()["type"]) == (401, "/problems/mfa-required"), answer.text
        return str(answer.json()["ticket"])


@pytest.fixture
async def clinic(
    servers: Servers,
    database_of: Callable[[Service], str],
    signer: TokenSigner,
    clock: FixedClock,
    tmp_path: Path,
) -> AsyncIterator[Clinic]:
    (tmp_path / "signing-key.pem").write_bytes(signer.key.as_pem(private=True))
    listener, other = bound_to_a_free_port(), bound_to_a_free_port()
    url, other_url = (f"http://{SITE}:{one.getsockname()[1]}" for one in (listener, other))
    async with AsyncExitStack() as stack:
        identity = await stack.enter_async_context(
            harness(
                identity_service,
                database_url=database_of(identity_service),
                amqp_url=servers.amqp_url,
                signer=signer,
                clock=clock,
                secrets_dir=tmp_path,
                bootstrap_admin_login=ADMIN_LOGIN,
                bootstrap_admin_password=ADMIN_PASSWORD,
                url=url,
                passkey_rp_id=SITE,
                passkey_origins=url,
                **_CHEAP,
            )
        )
        upstream = await stack.enter_async_context(
            serving(create_app(identity_service, identity.runtime), lifespan="off")
        )
        gateway = _gateway(upstream, url, signer, clock)
        await stack.enter_async_context(serving(gateway, listener))
        await stack.enter_async_context(serving(gateway, other, lifespan="off"))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=60, trust_env=False))
        yield Clinic(url, other_url, identity, http)


def _gateway(identity_url: str, url: str, signer: TokenSigner, clock: FixedClock) -> Any:
    settings = GatewaySettings.model_validate(
        {
            "environment": "test",
            "token_issuer": ISSUER,
            "upstreams": f"identity={identity_url}",
            "url": url,
            **_UNLIMITED,
        }
    )
    verifier = TokenVerifier.static(signer.public_jwks(), issuer=ISSUER, clock=clock)
    return create_gateway(settings, verifier=verifier, revocations=Revocations())
