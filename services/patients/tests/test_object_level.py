"""Every operation on a patient, asked about somebody whom the caller has nothing to do with.

Generated from the routes: a new one is asked too.
"""

import json
import re
from typing import Any

import pytest
from clinic_patients.app import service
from clinic_shared.contracts import CONTRACTS_DIR
from clinic_shared.ids import uuid7
from clinic_shared.routing import ClinicRoute

from .conftest import Clinic

PATH = "{patient_id}"
OPENS_ANYBODY = "breakGlass"
_DESCRIPTION = json.loads((CONTRACTS_DIR / "openapi" / "patients.json").read_text(encoding="utf-8"))
ROUTES = [route for router in service.routers for route in router.routes if PATH in route.path_format]


def example_of(route: ClinicRoute) -> Any:
    """Return a valid body, for the door to be what refuses."""
    method = min(route.methods or ())
    operation = _DESCRIPTION["paths"][route.path_format][method.lower()]
    content = operation.get("requestBody", {}).get("content", {})
    if not content:
        return None
    name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
    return _DESCRIPTION["components"]["schemas"][name]["examples"][0]


async def ask(clinic: Clinic, route: ClinicRoute, patient_id: str, caller: Any) -> tuple[int, dict[str, Any]]:
    method = min(route.methods or ())
    body = example_of(route)
    if body is not None and "department_id" in body:
        body |= {"department_id": str(clinic.department_id)}
    path = re.sub(r"{\w+}", str(uuid7()), route.path_format.replace(PATH, patient_id))
    answer = await clinic.call(method, path, caller, body, If_Match='"1"')
    told = answer.json() if answer.content else {}
    shown = (
        {k: v for k, v in told.items() if k not in {"instance", "request_id"}}
        if isinstance(told, dict)
        else {}
    )
    return answer.status_code, shown


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation_id)
async def test_what_is_nobody_s_business_answers_as_if_it_were_not_there(
    clinic: Clinic, route: ClinicRoute
) -> None:
    stranger, nowhere = (await clinic.register(treated=False))["patient_id"], str(uuid7())
    elsewhere = {"network": False, "centre_ids": frozenset({uuid7()})}
    callers = [
        clinic.patient(str(uuid7())),
        clinic.caller("registrar", **elsewhere),
        clinic.caller("doctor", network=False, department_ids=frozenset({clinic.department_id})),
    ]
    if route.operation_id == OPENS_ANYBODY:
        callers = callers[:-1]
    for caller in callers:
        there = await ask(clinic, route, stranger, caller)
        assert there == await ask(clinic, route, nowhere, caller)
        assert there[0] in {403, 404, 409}, there
        assert stranger not in json.dumps(there[1])
