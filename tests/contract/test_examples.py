"""The examples of the API descriptions are true: each fits its schema, and its service takes it."""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from uuid import UUID

import httpx
import pytest
from clinic_shared.auth import TokenSigner
from clinic_shared.contracts import load
from clinic_shared.service import Service
from clinic_shared.testing import FixedClock, Servers, ServiceHarness, harness
from jsonschema import Draft202012Validator

CONTRACTS = load()
JSON = "application/json"
REFUSED_AS_WRONG = {400, 403, 415, 422, 428}
# No password, token or dead letter of an example can be anybody's; not every service hears events or can be rebuilt.
ABOUT_NOTHING_HERE = {
    "addPasskey",
    "beginTotp",
    "choosePin",
    "unlockSession",
    "getPasskeyLoginOptions",
    "logInWithPasskey",
    "logInWithRecoveryCode",
    "logInWithTotp",
    "stepUp",
    "acceptAccessLink",
    "ask_to_discard_inbound_messages",
    "changePassword",
    "discard_dead_letters",
    "logIn",
    "redrive_dead_letters",
    "refreshSession",
    "reprocess_inbound_messages",
    "request_rebuild",
    "request_resend",
}

# Whom and what the examples name; those of the events have the same ids.
NAMED = {
    "centre_id": "01900000-0000-7000-8000-ce0000000001",
    "department_id": "01900000-0000-7000-8000-de0000000001",
    "partner_id": "01900000-0000-7000-8000-1ab000000001",
    "patient_id": "01900000-0000-7000-8000-a00000000001",
    "resource_id": "01900000-0000-7000-8000-b00000000001",
    "service_id": "01900000-0000-7000-8000-5e0000000001",
    "staff_id": "01900000-0000-7000-8000-5a0000000001",
}
OTHER_DEPARTMENT = "01900000-0000-7000-8000-de0000000002"
NOBODYS = "01900000-0000-7000-8000-000000000000"
SAID_BY_OTHERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("identity.centre-opened.v1", {}),
    ("identity.department-opened.v1", {}),
    ("identity.department-opened.v1", {"department_id": OTHER_DEPARTMENT}),
    ("identity.staff-member-added.v1", {}),
    ("identity.lab-registered.v1", {}),
    ("patients.patient-registered.v1", {}),
    ("scheduling.service-defined.v1", {}),
)


@dataclass(frozen=True)
class Operation:
    """One that takes JSON."""

    service: str
    method: str
    path: str
    description: dict[str, Any]
    body: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.description["operationId"])

    @property
    def examples(self) -> list[Any]:
        return list(self.body.get("examples", ()))

    @property
    def needs(self) -> tuple[bool, int]:
        """How much must be there before: something of the path, then what the body names."""
        return self.follows, json.dumps(self.examples).count('"01900000-')

    @property
    def follows(self) -> bool:
        return "{" in self.path

    def url(self, known: Mapping[str, str]) -> str:
        return self.path.format(
            **{
                given["name"]: known.get(given["name"]) or _nobodys(given["schema"])
                for given in self.description.get("parameters", ())
                if given["in"] == "path"
            }
        )


def _nobodys(schema: dict[str, Any]) -> str:
    if schema["type"] == "integer":
        return "1"
    return f"{NOBODYS}.1" if "pattern" in schema else NOBODYS


def description_of(service: str) -> dict[str, Any]:
    path = CONTRACTS.folder / "openapi" / f"{service}.json"
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def operations_of(service: str) -> Iterator[Operation]:
    document = description_of(service)
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {})
            if JSON in content:
                schema = content[JSON]["schema"]
                named = schema.get("$ref") or schema["anyOf"][0]["$ref"]
                yield Operation(service, method, path, operation, schemas[named.rpartition("/")[2]])


@pytest.mark.parametrize("service", CONTRACTS.services)
def test_every_operation_that_takes_json_shows_what_to_send(service):
    assert [operation.name for operation in operations_of(service) if not operation.examples] == []


@pytest.mark.parametrize("service", CONTRACTS.services)
def test_every_example_fits_its_schema(service):
    document = description_of(service)
    for schema in _with_examples(document):
        whole = schema | {"components": document["components"]}
        validator = Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER)
        for example in schema["examples"]:
            assert [error.message for error in validator.iter_errors(example)] == [], example


def _with_examples(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if isinstance(node.get("examples"), list) and ("type" in node or "anyOf" in node):
            yield node
        for child in node.values():
            yield from _with_examples(child)
    elif isinstance(node, list):
        for child in node:
            yield from _with_examples(child)


@pytest.fixture
async def running(
    servers: Servers, database_of: Callable[[Service], str], signer: TokenSigner, clock: FixedClock, tmp_path
) -> AsyncIterator[Callable[[str], Any]]:
    """Return a function that starts a service and tells it what the examples take as known."""
    (tmp_path / "signing-key.pem").write_bytes(signer.key.as_pem(private=True))
    own = {"identity": {"secrets_dir": tmp_path, "password_memory_kib": 8, "password_iterations": 1}}
    async with AsyncExitStack() as stack:

        async def start(name: str) -> ServiceHarness:
            service = import_module(f"{CONTRACTS.services[name].package}.app").service
            started = await stack.enter_async_context(
                harness(
                    service,
                    database_url=database_of(service),
                    amqp_url=servers.amqp_url,
                    signer=signer,
                    clock=clock,
                    **own.get(name, {}),
                )
            )
            heard = {event.type for event in CONTRACTS.consumed_by(name)}
            for event, changes in SAID_BY_OTHERS:
                if event in heard:
                    await started.deliver_example(event, **changes)
            return started

        yield start


def headers_of_one_who_may_do_everything(service: ServiceHarness) -> dict[str, str]:
    caller = service.principal(*CONTRACTS.scopes_by_role(), subject=UUID(NAMED["staff_id"]))
    return {**service.headers(caller), "If-Match": '"1"'}


async def send(
    service: ServiceHarness, operation: Operation, example: Any, known: Mapping[str, str]
) -> httpx.Response:
    """Send an example with the ids of what is here in place of those that it names."""
    body = json.dumps(example)
    for name, example_id in NAMED.items():
        body = body.replace(example_id, known[name])
    headers = headers_of_one_who_may_do_everything(service) | {"Content-Type": JSON}
    while True:
        answer = await service.http.request(
            operation.method, operation.url(known), content=body, headers=headers
        )
        if answer.status_code != httpx.codes.PRECONDITION_FAILED:
            return answer
        headers["If-Match"] = f'"{answer.json()["current_version"]}"'


def is_accepted(operation: Operation, answer: httpx.Response) -> bool:
    if operation.follows or operation.name in ABOUT_NOTHING_HERE:
        return not answer.is_server_error and answer.status_code not in REFUSED_AS_WRONG
    return answer.is_success


@pytest.mark.timeout(180)
@pytest.mark.parametrize("service", CONTRACTS.services)
async def test_a_service_takes_its_own_examples(service, running):
    started = await running(service)
    known = dict(NAMED)
    for operation in sorted(operations_of(service), key=lambda found: found.needs):
        for example in operation.examples:
            answer = await send(started, operation, example, known)
            assert is_accepted(operation, answer), f"{operation.name}: {answer.status_code} {answer.text}"
            if answer.is_success and answer.content:
                made = answer.json()
                known |= {name: value for name, value in made.items() if value and name.endswith("_id")}
