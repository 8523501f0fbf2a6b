"""Every operation of every service, asked by every role: let through the door exactly as its permission says.

What happens behind the door (no such thing, nothing valid in the body) is other tests' business.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from importlib import import_module
from typing import Any

import httpx
import pytest
from clinic_shared.app import create_app
from clinic_shared.auth import TokenSigner
from clinic_shared.contracts import load
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.routing import ClinicRoute
from clinic_shared.service import Service
from clinic_shared.testing import FixedClock, Servers, ServiceHarness, harness

CONTRACTS = load()
ROLES = CONTRACTS.scopes_by_role()
NOBODYS = "01900000-0000-7000-8000-000000000000"
AT_ONCE = 6

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
async def running(
    servers: Servers, database_of: Callable[[Service], str], signer: TokenSigner, clock: FixedClock, tmp_path
) -> AsyncIterator[Callable[[str], Any]]:
    (tmp_path / "signing-key.pem").write_bytes(signer.key.as_pem(private=True))
    own = {"identity": {"secrets_dir": tmp_path, "password_memory_kib": 8, "password_iterations": 1}}
    async with AsyncExitStack() as stack:

        async def start(name: str) -> ServiceHarness:
            service = import_module(f"{CONTRACTS.services[name].package}.app").service
            started: ServiceHarness = await stack.enter_async_context(
                harness(
                    service,
                    database_url=database_of(service),
                    amqp_url=servers.amqp_url,
                    signer=signer,
                    clock=clock,
                    **own.get(name, {}),
                )
            )
            return started

        yield start


def operations_of(service: Service) -> list[ClinicRoute]:
    routes = create_app(service).routes
    return [one for one in routes if isinstance(one, ClinicRoute) and isinstance(one.permission, str)]


def caller_of(service: ServiceHarness, role: str) -> Principal:
    claims = {"patient_id": uuid7()} if role == "patient" else {}
    return service.principal(role, **claims)


async def ask(service: ServiceHarness, route: ClinicRoute, role: str) -> httpx.Response:
    method = min(route.methods or ())
    names = {name: "1" if "number" in name else NOBODYS for name in route.param_convertors}
    headers = service.headers(caller_of(service, role)) | {"If-Match": '"1"'}
    body: dict[str, Any] = {} if method == "GET" else {"json": {}}
    return await service.http.request(method, route.path_format.format(**names), headers=headers, **body)


def was_let_in(answer: httpx.Response) -> bool:
    """A refusal for another reason (somebody else's place) comes from behind the door."""
    if answer.status_code != httpx.codes.FORBIDDEN:
        return True
    told = answer.json()
    return "permission" not in told and told.get("resourceType") != "OperationOutcome"


@pytest.mark.parametrize("name", CONTRACTS.services)
async def test_each_role_is_let_in_exactly_where_it_has_the_permission(name, running):
    service = await running(name)
    places, wrong = asyncio.Semaphore(AT_ONCE), []

    async def check(route: ClinicRoute, role: str) -> None:
        async with places:
            answer = await ask(service, route, role)
        expected = route.permission in ROLES[role]
        if was_let_in(answer) != expected or answer.is_server_error:
            wrong.append(f"{role} {route.operation_id}: {answer.status_code}")

    operations = operations_of(service.service)
    assert len(operations) > 10
    await asyncio.gather(*(check(route, role) for route in operations for role in ROLES))
    assert wrong == []


async def test_nobody_is_let_in_without_a_token(running):
    for name in CONTRACTS.services:
        service = await running(name)
        for route in operations_of(service.service):
            method = min(route.methods or ())
            names = dict.fromkeys(route.param_convertors, NOBODYS)
            answer = await service.http.request(method, route.path_format.format(**names))
            assert answer.status_code == 401, route.operation_id
