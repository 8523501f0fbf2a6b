"""Services in this process, filled by the examples of their own API descriptions and of the events they hear.

What is made of an operation's description reaches new operations too: nobody has to think of them.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from clinic_shared.auth import TokenSigner
from clinic_shared.contracts import load
from clinic_shared.service import Service
from clinic_shared.testing import FixedClock, ServiceHarness, harness

CONTRACTS = load()
JSON = "application/json"

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
    """One of a service's, as its description has it; `body` is the schema of what it takes as JSON, if it does."""

    service: str
    method: str
    path: str
    description: dict[str, Any]
    body: dict[str, Any] | None

    @property
    def name(self) -> str:
        return str(self.description["operationId"])

    @property
    def examples(self) -> list[Any]:
        return list((self.body or {}).get("examples", ()))

    @property
    def needs(self) -> tuple[bool, int]:
        """How much must be there before: something of the path, then what the body names."""
        return self.follows, json.dumps(self.examples).count('"01900000-')

    @property
    def follows(self) -> bool:
        return "{" in self.path

    def parameters(self, place: str) -> list[dict[str, Any]]:
        return [given for given in self.description.get("parameters", ()) if given["in"] == place]

    def url(self, known: Mapping[str, str]) -> str:
        return self.path.format(
            **{
                given["name"]: known.get(given["name"]) or _nobodys(given["schema"])
                for given in self.parameters("path")
            }
        )


def _nobodys(schema: dict[str, Any]) -> str:
    if schema["type"] == "integer":
        return "1"
    return f"{NOBODYS}.1" if "pattern" in schema else NOBODYS


@cache
def description_of(service: str) -> dict[str, Any]:
    path = CONTRACTS.folder / "openapi" / f"{service}.json"
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def all_operations_of(service: str) -> Iterator[Operation]:
    document = description_of(service)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield Operation(service, method, path, operation, _json_of(document, operation))


def operations_of(service: str) -> Iterator[Operation]:
    """Yield those that take JSON."""
    return (operation for operation in all_operations_of(service) if operation.body is not None)


def _json_of(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any] | None:
    content = operation.get("requestBody", {}).get("content", {})
    if JSON not in content:
        return None
    schema = content[JSON]["schema"]
    named = schema.get("$ref") or schema["anyOf"][0]["$ref"]
    found: dict[str, Any] = document["components"]["schemas"][named.rpartition("/")[2]]
    return found


@asynccontextmanager
async def service_named(
    name: str,
    *,
    database_of: Callable[[Service], str],
    amqp_url: str,
    signer: TokenSigner,
    clock: FixedClock,
    folder: Path,
) -> AsyncIterator[ServiceHarness]:
    """Run a service, told what the examples take as known. Its secrets are kept in the folder."""
    (folder / "signing-key.pem").write_bytes(signer.key.as_pem(private=True))
    own = {"identity": {"secrets_dir": folder, "password_memory_kib": 8, "password_iterations": 1}}
    service: Service = import_module(f"{CONTRACTS.services[name].package}.app").service
    async with harness(
        service,
        database_url=database_of(service),
        amqp_url=amqp_url,
        signer=signer,
        clock=clock,
        **own.get(name, {}),
    ) as started:
        heard = {event.type for event in CONTRACTS.consumed_by(name)}
        for event, changes in SAID_BY_OTHERS:
            if event in heard:
                await started.deliver_example(event, **changes)
        yield started


def headers_of_one_who_may_do_everything(service: ServiceHarness) -> dict[str, str]:
    caller = service.principal(*CONTRACTS.scopes_by_role(), subject=UUID(NAMED["staff_id"]))
    return {**service.headers(caller), "If-Match": '"1"'}


def with_known_ids(example: Any, known: Mapping[str, str]) -> bytes:
    """Return an example with the ids of what is here in place of those that it names."""
    body = json.dumps(example)
    for name, example_id in NAMED.items():
        body = body.replace(example_id, known[name])
    return body.encode()


async def send(
    service: ServiceHarness, operation: Operation, example: Any, known: Mapping[str, str]
) -> httpx.Response:
    """Send an example as somebody who may do everything, until its version is the current one."""
    body = with_known_ids(example, known)
    headers = headers_of_one_who_may_do_everything(service) | {"Content-Type": JSON}
    while True:
        answer = await service.http.request(
            operation.method, operation.url(known), content=body, headers=headers
        )
        if answer.status_code != httpx.codes.PRECONDITION_FAILED:
            return answer
        headers["If-Match"] = f'"{answer.json()["current_version"]}"'


def ids_in(answer: httpx.Response) -> dict[str, str]:
    """Return the ids that an answer gives to what was made."""
    made = answer.json() if answer.is_success and answer.content else {}
    return {name: value for name, value in made.items() if value and name.endswith("_id")}
