from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from clinic_gateway.openapi import join
from clinic_gateway.pages import markdown
from clinic_gateway.routes import RouteTable

if TYPE_CHECKING:
    from .conftest import Clinic, Reply, StartClinic


def described(path: str, operation_id: str, schema: dict[str, object], **operation: object) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Item"}}}
    return {
        "openapi": "3.1.0",
        "paths": {
            path: {
                "get": {
                    "operationId": operation_id,
                    "summary": f"Read {operation_id}",
                    "responses": {"200": {"description": "ok", "content": content}},
                    **operation,
                }
            },
            "/healthz": {"get": {"operationId": "health", "responses": {}}},
        },
        "components": {"schemas": {"Item": schema}},
    }


PATIENTS = described("/v1/patients/{patient_id}", "read_patient", {"type": "object"})
SLOTS = described("/v1/slots", "list_slots", {"type": "string"})


def test_descriptions_are_joined_without_collisions() -> None:
    joined = join({"patients": PATIENTS, "scheduling": SLOTS}, RouteTable(), "http://x")
    assert list(joined["paths"]) == ["/v1/patients/{patient_id}", "/v1/slots"]
    schemas = joined["components"]["schemas"]
    slots = joined["paths"]["/v1/slots"]["get"]
    reference = slots["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    name = reference.rpartition("/")[2]
    assert schemas[name] == {"type": "string", "title": name}
    assert schemas["Item"] == {"type": "object"}
    assert slots["tags"] == ["scheduling"]


def test_the_same_schema_of_two_services_stays_one() -> None:
    other = described("/v1/slots", "list_slots", {"type": "object"})
    joined = join({"patients": PATIENTS, "scheduling": other}, RouteTable(), "")
    assert list(joined["components"]["schemas"]) == ["Item"]


def test_what_refers_to_another_services_namesake_is_kept_apart_too() -> None:
    page = {"type": "array", "items": {"$ref": "#/components/schemas/Item"}}
    parts = {"patients": copy.deepcopy(PATIENTS), "scheduling": copy.deepcopy(SLOTS)}
    for part, path in zip(parts.values(), ("/v1/patients/{patient_id}", "/v1/slots"), strict=True):
        part["components"]["schemas"]["Page"] = page
        content = part["paths"][path]["get"]["responses"]["200"]["content"]
        content["application/json"]["schema"] = {"$ref": "#/components/schemas/Page"}
    schemas = join(parts, RouteTable(), "")["components"]["schemas"]
    assert schemas["Page"]["items"] == {"$ref": "#/components/schemas/Item"}
    assert schemas["SchedulingPage"]["items"] == {"$ref": "#/components/schemas/SchedulingItem"}


def test_a_service_cant_describe_anothers_paths() -> None:
    joined = join({"scheduling": PATIENTS}, RouteTable(), "")
    assert joined["paths"] == {}


def test_public_operations_say_that_they_need_no_token() -> None:
    login = described("/v1/auth/login", "login", {})
    joined = join({"identity": login}, RouteTable(), "")
    assert joined["paths"]["/v1/auth/login"]["get"]["security"] == []


def test_operations_are_described_as_the_gateway_offers_them() -> None:
    shared = described("/v1/ops/dead-letters", "list", {})
    one = described("/v1/ops/dead-letters/{dead_letter_id}", "show", {})
    shared["paths"] |= one["paths"]
    joined = join({"patients": shared, "scheduling": shared}, RouteTable(), "")
    assert list(joined["paths"]) == [
        "/v1/ops/dead-letters",
        "/v1/ops/dead-letters/{service}",
        "/v1/ops/dead-letters/{service}/{dead_letter_id}",
    ]
    shown = joined["paths"]["/v1/ops/dead-letters/{service}/{dead_letter_id}"]["get"]
    assert (shown["tags"], shown["parameters"][0]["name"]) == (["operations"], "service")
    assert shown["parameters"][0]["schema"]["enum"] == ["patients", "scheduling"]


def test_a_page_of_all_services_is_described_as_joined_and_a_services_own_as_it_is() -> None:
    lists = {"items": {"type": "array", "items": {"type": "object"}}, "next_cursor": {"type": "string"}}
    page = described("/v1/ops/messages", "list", {"type": "object", "properties": lists})
    joined = join({"patients": page, "scheduling": page}, RouteTable(), "")

    def answer_of(path: str) -> Any:
        operation = joined["paths"][path]["get"]
        return operation["responses"]["200"]["content"]["application/json"]["schema"]

    together = answer_of("/v1/ops/messages")["properties"]
    assert together["items"]["items"]["allOf"][1] == {"$ref": "#/components/schemas/OfService"}
    assert list(together["services"]["additionalProperties"]["properties"]) == ["next_cursor"]
    assert answer_of("/v1/ops/messages/{service}") == {"$ref": "#/components/schemas/Item"}


async def test_the_description_comes_from_contracts_or_from_the_service(
    start_clinic: StartClinic, reply: type[Reply], tmp_path: Path
) -> None:
    (tmp_path / "openapi").mkdir()
    (tmp_path / "openapi" / "patients.json").write_text(json.dumps(PATIENTS))
    async with start_clinic("patients", "scheduling", contracts_dir=str(tmp_path)) as clinic:
        clinic["scheduling"].pages["/openapi.json"] = reply(document=SLOTS)
        document = (await clinic.http.get("/openapi.json")).json()
        assert sorted(document["paths"]) == ["/v1/patients/{patient_id}", "/v1/slots", "/v1/stream"]


async def test_the_docs_open_offline(start_clinic: StartClinic, reply: type[Reply]) -> None:
    async with start_clinic("scheduling") as clinic:
        clinic["scheduling"].pages["/openapi.json"] = reply(document=SLOTS)
        answer = await clinic.http.get("/docs")
        assert answer.status_code == 200
        assert "/v1/slots" in answer.text
        assert "curl" in answer.text
        assert not re.search(r"<script|(?:src|href)=['\"]?(?:https?:)?//", answer.text)
        assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_the_docs_open_while_a_service_is_down(clinic: Clinic) -> None:
    assert (await clinic.http.get("/docs")).status_code == 200


async def test_the_root_leads_to_the_docs(clinic: Clinic) -> None:
    answer = await clinic.http.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


async def test_descriptions_are_escaped(start_clinic: StartClinic, reply: type[Reply]) -> None:
    async with start_clinic("scheduling") as clinic:
        evil = described("/v1/slots", "x", {}, description="<script>alert(1)</script>")
        clinic["scheduling"].pages["/openapi.json"] = reply(document=evil)
        assert "<script" not in (await clinic.http.get("/docs")).text


@pytest.mark.parametrize(
    "slug", ["service-down", "reference-not-yet-known", "too-many-requests", "unauthenticated"]
)
async def test_a_problems_type_leads_to_cause_and_fix(clinic: Clinic, slug: str) -> None:
    answer = await clinic.http.get(f"/problems/{slug}")
    assert answer.status_code == 200
    assert "Cause" in answer.text
    assert "What to do" in answer.text


async def test_a_services_own_problem_is_explained_by_it(clinic: Clinic, reply: type[Reply]) -> None:
    page = reply(body=b"<h1>taken</h1>", headers=[("content-type", "text/html")])
    clinic["scheduling"].pages["/problems/known-to-one-service"] = page
    for name in ("identity", "patients", "notifications", "billing", "lab-integration"):
        clinic[name].pages["/problems/known-to-one-service"] = reply(404, {})
    assert (await clinic.http.get("/problems/known-to-one-service")).text == "<h1>taken</h1>"


async def test_health_metrics_and_version_are_answered(clinic: Clinic) -> None:
    assert (await clinic.http.get("/healthz")).json() == {"status": "ok"}
    assert (await clinic.http.get("/version")).json()["name"] == "clinic-gateway"
    await clinic.http.get("/.well-known/jwks.json")
    metrics = (await clinic.http.get("/metrics")).text
    assert (
        'clinic_http_requests_total{method="GET",route="/.well-known",service="gateway",status="200"}'
        in metrics
    )


async def test_readiness_names_what_is_down(clinic: Clinic) -> None:
    answer = await clinic.http.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["services"]["referrals"] == "service-down"
    assert answer.json()["reasons"] == ["referrals: service-down"]


async def test_a_gateway_without_any_service_isnt_ready(start_clinic: StartClinic) -> None:
    async with start_clinic(down=("identity",)) as clinic:
        assert (await clinic.http.get("/readyz")).status_code == 503
    async with start_clinic() as clinic:
        assert (await clinic.http.get("/readyz")).status_code == 503


def test_our_markdown_is_rendered() -> None:
    html = markdown('# A `b`\n\nText <x>.\n\n```sh\ncurl "$A" | jq\n```\n\nEnd.')
    assert html == (
        "<h2>A <code>b</code></h2><p>Text &lt;x&gt;.</p>"
        "<pre><code>curl &quot;$A&quot; | jq\n</code></pre><p>\nEnd.</p>"
    )
