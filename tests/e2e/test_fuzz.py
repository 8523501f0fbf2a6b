"""Whatever is sent to an operation of the merged API description, the answer is one that it documents.

`CLINIC_FUZZ_SEED` chooses other requests; that of a run is printed, and so is every request that failed.
"""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import pytest
import requests
import schemathesis
from clinic_local.api_client import Caller
from clinic_local.demo_network import Network
from clinic_local.environment import ADMIN_PASSWORD, Secrets
from clinic_local.testing import System
from clinic_shared.contracts import load
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

pytestmark = [pytest.mark.extended, pytest.mark.servers, pytest.mark.chaos, pytest.mark.timeout(900)]

SEED = int(os.environ.get("CLINIC_FUZZ_SEED") or 20260302)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
WELL_FORMED, MALFORMED = 3, 2  # requests per operation

LEFT_OUT = {
    "followChanges": "its answer has no end",
    "logOut": "ends the caller's own session",
    "changePassword": "the caller couldn't sign in again",
    "request_resend": "fills the queues of the whole system once more",
    "request_rebuild": "makes the whole read model once more",
    "redrive_dead_letters": "may let a message take effect that another test has parked",
    "discard_dead_letters": "may give up a message that another test has parked",
}
BY_TWO_PEOPLE = {"system-administrator", "privacy-officer"}
# What these leave behind can't be worked with any more, so they come last.
ENDINGS = ("/close", "/deactivate", "/withdraw", "/cancel", "/decline", "/miss")


class Ground:
    """A centre, people and things of the test's own, made by somebody with every role that one person may give."""

    def __init__(self, system: System, admin: Caller) -> None:
        self._admin = admin
        login, roles = (
            "everybody@demo.example.org",
            load().scopes_by_role().keys() - {"patient", "lab", *BY_TWO_PEOPLE},
        )
        member = self._member(login, roles=sorted(roles), network=True)
        password = secrets.token_urlsafe(12)
        with Caller(system.url, login, member["initial_password"]) as newcomer:
            newcomer.post(
                "/v1/me/password",
                {"current_password": member["initial_password"], "new_password": password},
            )
        self.everybody = Caller(system.url, login, password)
        self.ids: dict[str, str] = {}
        self._build()

    def headers(self) -> dict[str, str]:
        return self.everybody.authorization()

    def _member(self, login: str, **position: Any) -> Any:
        name = {"family": "Случайнова", "given": "Проба"}
        return self._admin.post("/v1/staff", {"name": name, "login": login, **position})

    def _make(self, path: str, body: dict[str, Any], *names: str, by: Caller | None = None) -> None:
        made = (by or self.everybody).post(path, body)
        self.ids |= {name: made[name] for name in names}

    def _build(self) -> None:
        centre = {"code": "fuzz", "name": "Fuzz centre", "legal_entity": {"name": "Fuzz Clinic Ltd"}}
        place = {"currency": "RUB", "time_zone": "Europe/Moscow", "language": "ru"}
        self._make("/v1/centres", centre | place, "centre_id", by=self._admin)
        here = {"centre_id": self.ids["centre_id"]}
        department = {**here, "code": "fuzz-dermatology", "name": "Dermatology", "specialty": "dermatology"}
        self._make("/v1/departments", department, "department_id", by=self._admin)
        doctor = self._member(
            "d" + "everybody@demo.example.org",
            roles=["doctor"],
            centre_ids=[self.ids["centre_id"]],
            department_ids=[self.ids["department_id"]],
            practitioner=True,
        )
        self.ids["staff_id"] = doctor["staff_id"]
        person = {
            "name": {"family": "Случайный", "given": "Пациент"},
            "birth_on": "1990-01-01",
            "sex": "male",
        }
        self._make("/v1/patients", person | here, "patient_id")
        service = {"code": "fuzz", "name": "Consultation", "duration_seconds": 1800}
        departments = {"department_ids": [self.ids["department_id"]]}
        self._make("/v1/services", service | departments, "service_id", by=self._admin)


@pytest.fixture(scope="module")
def ground(system: System, network: Network) -> Iterator[Ground]:
    with Caller(system.url, network.login_of("admin"), Secrets(system.root).get(ADMIN_PASSWORD)) as admin:
        made = Ground(system, admin)
    with made.everybody:
        yield made


class Fuzzer:
    """Sends requests of one description and keeps what was wrong with the answers."""

    def __init__(self, url: str, ids: Mapping[str, str]) -> None:
        self._url = url
        self._ids = ids
        self._session = requests.Session()
        self._session.trust_env = False  # loopback: a proxy of the machine has nothing to do here
        self.sent: dict[str, int] = {}
        self.wrong: dict[str, str] = {}

    def try_out(self, operation: APIOperation[Any, Any, Any, Any], headers: Mapping[str, str]) -> None:
        ids = {name: value for name, value in self._ids.items() if f"{{{name}}}" in operation.path}
        for mode, count in ((GenerationMode.POSITIVE, WELL_FORMED), (GenerationMode.NEGATIVE, MALFORMED)):
            for known in ({}, ids) if ids else ({},):
                self._send(operation, mode, count, headers, known)

    def _send(
        self,
        operation: APIOperation[Any, Any, Any, Any],
        mode: GenerationMode,
        count: int,
        headers: Mapping[str, str],
        ids: Mapping[str, str],
    ) -> None:
        @seed(SEED)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode, path_parameters=dict(ids) or None))
        def send(case: schemathesis.Case[Any]) -> None:
            answer = case.call(base_url=self._url, session=self._session, headers=dict(headers), timeout=60)
            self.sent[operation.label] = self.sent.get(operation.label, 0) + 1
            try:
                case.validate_response(answer, checks=CHECKS)
            except FailureGroup as failures:
                request = case.as_curl_command()
                for failure in failures.exceptions:
                    self.wrong.setdefault(operation.label, f"{failure}\n{request}")

        with suppress(Unsatisfiable):  # nothing about it can be malformed
            send()


def test_no_request_makes_an_answer_that_is_not_documented(system: System, ground: Ground) -> None:
    print(f"\nCLINIC_FUZZ_SEED={SEED}")
    with Caller(system.url) as anybody:
        document = anybody.get("/openapi.json")
    results = list(schemathesis.openapi.from_dict(document).get_all_operations())
    found = [result.ok() for result in results if isinstance(result, Ok)]
    assert len(found) == len(results), "the description itself is wrong"
    names = {operation.label: operation.definition.raw["operationId"] for operation in found}
    fuzzer = Fuzzer(system.url, ground.ids)
    for operation in sorted(found, key=lambda each: each.path.endswith(ENDINGS)):
        if names[operation.label] not in LEFT_OUT:
            fuzzer.try_out(operation, ground.headers())
    assert not fuzzer.wrong, "\n\n".join(f"{label}\n{why}" for label, why in fuzzer.wrong.items())
    untried = {names[operation.label] for operation in found if not fuzzer.sent.get(operation.label)}
    assert untried == LEFT_OUT.keys() & set(names.values())
