"""Any service but identity and audit left out, one at a time, as a client of the gateway sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from clinic_gateway.openapi import ApiDescription
from clinic_gateway.routes import ROUTES, SERVICES, RouteTable
from clinic_gateway.settings import GatewaySettings
from clinic_gateway.upstream import Upstreams

from .conftest import Bearer, StartClinic, dead_url

if TYPE_CHECKING:
    from clinic_gateway.routes import Route

EACH_LEFT_OUT = pytest.mark.parametrize(
    "left_out", [name for name in SERVICES if name not in {"identity", "audit"}]
)


def without(left_out: str) -> str:
    return ",".join(f"{name}={dead_url()}" for name in SERVICES if name != left_out)


def path_of(route: Route) -> str:
    return route.prefix.replace("*", "1")


@EACH_LEFT_OUT
async def test_its_routes_say_so_and_the_others_are_passed_on(
    start_clinic: StartClinic, bearer: Bearer, left_out: str
) -> None:
    async with start_clinic(upstreams=without(left_out)) as clinic:
        headers = bearer()
        for route in ROUTES:
            answer = await clinic.http.get(path_of(route), headers=headers)
            fhir = route.prefix.startswith("/fhir/")
            if route.service == left_out:
                slug = answer.json()["issue"][0]["code"] if fhir else answer.json()["type"]
                assert (answer.status_code, slug) == (404, "not-found" if fhir else "/problems/not-installed")
            else:
                assert answer.status_code == 503, route.prefix
        readiness = (await clinic.http.get("/readyz")).json()
        assert left_out not in readiness["services"]
        operations = (await clinic.http.get("/v1/ops/ledger", headers=headers)).json()
        assert {part["service"] for part in operations["unreachable"]} == set(SERVICES) - {left_out}


@EACH_LEFT_OUT
async def test_the_description_leaves_its_paths_out_and_keeps_all_others(left_out: str) -> None:
    table = RouteTable()

    async def paths(upstreams: str) -> set[str]:
        settings = GatewaySettings(upstreams=upstreams)
        described = ApiDescription(Upstreams(settings), settings.contracts_dir, table, "")
        return set((await described.document())["paths"])

    whole = await paths(",".join(f"{name}=http://x" for name in SERVICES))
    rest = await paths(without(left_out))
    own = {path for path in whole if (route := table.match(path)) and route.service == left_out}
    assert own
    assert whole - rest == own | {path for path in whole - rest if path.startswith("/v1/ops/")}
    assert not rest - whole


async def test_the_problems_page_says_what_to_do(start_clinic: StartClinic) -> None:
    async with start_clinic("identity") as clinic:
        page = (await clinic.http.get("/problems/not-installed")).text
        assert "operator" in page
