"""API1:2023, broken object level authorisation: everything that is somebody's, asked for by strangers.

Generated from the routes and the policy: whoever holds a permission, but works elsewhere or is another patient,
gets for what is there the same answer as for what isn't.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml
from clinic_shared.app import create_app
from clinic_shared.contracts import CONTRACTS_DIR
from clinic_shared.ids import uuid7
from clinic_shared.policy import POLICY_FILE, Reach
from clinic_shared.principal import Principal
from clinic_shared.routing import ClinicRoute
from clinic_shared.testing import ServiceHarness
from clinic_shared.testing_examples import CONTRACTS, JSON, Operation, all_operations_of, with_known_ids

from .conftest import Target, TargetOf

_POLICY = yaml.safe_load((CONTRACTS_DIR / POLICY_FILE).read_text(encoding="utf-8"))
REACHES: dict[str, dict[str, list[str]]] = {
    permission: rule["reach"] for data in _POLICY["data"].values() for permission, rule in data.items()
}
AT_LEAST = {"patients": 15, "billing": 10, "scheduling": 5, "lab-integration": 4, "referrals": 5}
"""So that a description that changes its form doesn't make the test ask for nothing."""
OF_NOBODY = {
    # What every receipt prints.
    "getFiscalProfile",
}


def strangers(service: ServiceHarness, permission: str) -> Iterator[Principal]:
    """Yield one of each role that holds the permission for some records, none of which is here."""
    for role, reaches in REACHES[permission].items():
        if Reach.NETWORK in reaches:
            continue
        elsewhere: dict[str, Any] = {"network": False, "centre_ids": frozenset({uuid7()})}
        if role == "patient":
            elsewhere = {"patient_id": uuid7()}
        yield service.principal(role, department_ids=frozenset({uuid7()}), **elsewhere)


def about_somebody(target: Target) -> Iterator[tuple[Operation, str]]:
    """Yield operations on something that is there and that the policy speaks of."""
    described = {operation.name: operation for operation in all_operations_of(target.service.service.name)}
    for route in create_app(target.service.service).routes:
        if not isinstance(route, ClinicRoute) or route.permission not in REACHES:
            continue
        operation = described[route.operation_id or ""]
        if operation.name in OF_NOBODY:
            continue
        if operation.follows and set(route.param_convertors) <= target.known.keys():
            yield operation, str(route.permission)


async def ask(
    target: Target, operation: Operation, path: str, caller: Principal
) -> tuple[int, dict[str, Any]]:
    headers = target.service.headers(caller) | {"If-Match": '"1"'}
    content = None
    if operation.examples:
        content, headers = (
            with_known_ids(operation.examples[0], target.known),
            headers | {"Content-Type": JSON},
        )
    answer = await target.service.http.request(operation.method, path, content=content, headers=headers)
    told = answer.json() if answer.content else {}
    return answer.status_code, {name: told[name] for name in told.keys() - {"instance", "request_id"}}


@pytest.mark.parametrize("name", CONTRACTS.services)
async def test_what_is_a_strangers_answers_as_if_it_were_not_there(name: str, target_of: TargetOf) -> None:
    target = await target_of(name)
    wrong, asked = [], 0
    for operation, permission in about_somebody(target):
        there = operation.url(target.known)
        nowhere = operation.url({name: str(uuid7()) for name in target.known})
        asked += 1
        for caller in strangers(target.service, permission):
            status, told = await ask(target, operation, there, caller)
            as_if = await ask(target, operation, nowhere, caller)
            # That somewhere there is a centre or a cash desk is no secret, what is in it is.
            of_a_place = status == httpx.codes.FORBIDDEN and told["type"] == "/problems/forbidden"
            if not of_a_place and (status != httpx.codes.NOT_FOUND or (status, told) != as_if):
                wrong.append(f"{operation.name} as {set(caller.roles)}: {status} {told} {as_if}")
    assert not wrong, "\n".join(wrong)
    assert asked >= AT_LEAST.get(name, 0)
