"""Every service in this process, once for all tests here, and filled with what the examples make."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import pytest
from clinic_gateway.app import create_app
from clinic_gateway.settings import GatewaySettings
from clinic_gateway.tokens import Revocations
from clinic_shared.auth import TokenSigner, TokenVerifier
from clinic_shared.service import Service
from clinic_shared.testing import ISSUER, FixedClock, Servers, ServiceHarness
from clinic_shared.testing_examples import CONTRACTS, NAMED, ids_in, operations_of, send, service_named


@dataclass(frozen=True)
class Target:
    """A service and the ids of what is in it."""

    service: ServiceHarness
    known: dict[str, str]


TargetOf = Callable[[str], Awaitable[Target]]


@pytest.fixture(scope="session")
async def target_of(
    servers: Servers,
    lasting_database_of: Callable[[Service], str],
    signer: TokenSigner,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[TargetOf]:
    started: dict[str, Target] = {}
    async with AsyncExitStack() as stack:

        async def start(name: str) -> Target:
            if name not in started:
                running = service_named(
                    name,
                    database_of=lasting_database_of,
                    amqp_url=servers.amqp_url,
                    signer=signer,
                    clock=FixedClock(),
                    folder=tmp_path_factory.mktemp(name),
                )
                started[name] = await _filled(await stack.enter_async_context(running))
            return started[name]

        yield start


@pytest.fixture
async def gateway(signer: TokenSigner) -> AsyncIterator[httpx.AsyncClient]:
    """The gateway before services that don't answer: who gets through is told so, not refused."""
    unlimited = {f"rate_{what}_per_second": 0 for what in ("address", "subject", "sign_in")}
    upstreams = ",".join(f"{name}=http://127.0.0.1:1" for name in CONTRACTS.services)
    settings = GatewaySettings.model_validate(
        {"environment": "test", "token_issuer": ISSUER, "upstreams": upstreams, **unlimited}
    )
    verifier = TokenVerifier.static(signer.public_jwks(), issuer=ISSUER, clock=FixedClock(datetime.now(UTC)))
    transport = httpx.ASGITransport(create_app(settings, verifier=verifier, revocations=Revocations()))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as http:
        yield http


async def _filled(service: ServiceHarness) -> Target:
    known = dict(NAMED)
    for operation in sorted(operations_of(service.service.name), key=lambda found: found.needs):
        for example in operation.examples:
            known |= ids_in(await send(service, operation, example, known))
    return Target(service, known)
