"""Who may call what, and what clients see when they may not."""

import io
from typing import Any
from uuid import UUID

import pytest
import structlog
from clinic_billing import api
from clinic_shared import telemetry
from clinic_shared.ids import uuid7

from .conftest import Till

ANY = str(uuid7())
ROUTES = [
    ("POST", "/v1/prices"),
    ("GET", "/v1/prices"),
    ("GET", "/v1/invoices"),
    ("GET", "/v1/invoices/awaiting-price"),
    ("GET", f"/v1/invoices/{ANY}"),
    ("POST", f"/v1/invoices/{ANY}/payments"),
    ("GET", "/v1/payments"),
    ("GET", "/v1/payments/notifications"),
    ("POST", f"/v1/payments/notifications/{ANY}/redrive"),
    ("POST", f"/v1/payments/notifications/{ANY}/discard"),
    ("GET", f"/v1/payments/{ANY}"),
    ("POST", f"/v1/payments/{ANY}/cancel"),
    ("GET", f"/v1/payments/{ANY}/refunds"),
    ("POST", f"/v1/payments/{ANY}/refunds"),
]


def test_the_list_of_routes_is_complete() -> None:
    declared = {(method, route.path) for route in api.router.routes for method in route.methods or ()}
    assert len(declared) == len(ROUTES)


async def test_without_a_token_there_is_no_answer(till: Till) -> None:
    for method, path in ROUTES:
        answer = await till.billing.http.request(method, path)
        assert answer.status_code == 401, path
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("role", ["doctor", "management", "privacy-officer", "lab"])
async def test_who_treats_or_manages_never_sees_money(till: Till, role: str) -> None:
    headers = till.billing.headers(till.billing.principal(role))
    for method, path in ROUTES:
        answer = await till.billing.http.request(method, path, headers=headers)
        assert answer.status_code == 403, path


async def test_a_registrar_sees_prices_but_no_payments(till: Till) -> None:
    headers = till.billing.headers(till.billing.principal("registrar"))
    assert (await till.get("/v1/prices", headers)).status_code == 200
    assert (await till.get("/v1/payments", headers)).status_code == 403
    assert (await till.get("/v1/invoices", headers)).status_code == 403


async def test_a_patient_sees_and_pays_only_their_own(till: Till) -> None:
    invoice = await till.invoice()
    payment = await till.start_payment(invoice["invoice_id"])
    stranger = till.billing.headers(till.billing.principal("patient", patient_id=uuid7()))
    for path in ("/v1/invoices", "/v1/payments"):
        assert (await till.get(path, stranger)).json()["items"] == []
    for path in (f"/v1/invoices/{invoice['invoice_id']}", f"/v1/payments/{payment['payment_id']}"):
        assert (await till.get(path, stranger)).status_code == 404
    for path in (
        f"/v1/invoices/{invoice['invoice_id']}/payments",
        f"/v1/payments/{payment['payment_id']}/cancel",
    ):
        assert (await till.post(path, {}, stranger)).status_code == 404
    [own] = (await till.get("/v1/invoices", till.patient())).json()["items"]
    assert own["invoice_id"] == invoice["invoice_id"]
    [mine] = (await till.get("/v1/payments", till.patient())).json()["items"]
    assert mine["payment_id"] == payment["payment_id"]


async def test_a_patient_can_t_give_themselves_money_back(till: Till) -> None:
    payment, _ = await till.paid()
    path = f"/v1/payments/{payment['payment_id']}/refunds"
    assert (await till.post(path, {"reason_code": "mistake"}, till.patient())).status_code == 403


async def test_a_biller_of_another_place_sees_nothing_and_sets_no_price(till: Till) -> None:
    payment, _ = await till.paid()
    await till.complete_visit(service_code="dietetics-consultation")
    elsewhere: dict[str, Any] = {"network": False, "centre_ids": frozenset({uuid7()})}
    for path in ("/v1/invoices", "/v1/payments", "/v1/invoices/awaiting-price"):
        assert (await till.get(path, till.biller(**elsewhere))).json()["items"] == []
        assert len((await till.get(path)).json()["items"]) == 1
    shown = await till.get(f"/v1/invoices/{payment['invoice_id']}", till.biller(**elsewhere))
    assert shown.status_code == 404
    path = f"/v1/payments/{payment['payment_id']}/refunds"
    refused = await till.post(path, {"reason_code": "mistake"}, till.biller(**elsewhere))
    assert refused.status_code == 404
    body = {
        "service_code": "dermatology-consultation",
        "centre_id": str(till.centre_id),
        "amount_minor": 1,
        "currency": "RUB",
        "valid_from": "2027-01-01",
    }
    assert (await till.post("/v1/prices", body, till.biller(**elsewhere))).status_code == 403


@pytest.mark.parametrize(
    "place", [{"centre_ids": "centre_id"}, {"department_ids": "department_id"}], ids=["centre", "department"]
)
async def test_a_biller_of_the_place_sees_its_invoices(till: Till, place: dict[str, str]) -> None:
    invoice = await till.invoice()
    here: dict[str, Any] = {name: frozenset({UUID(invoice[key])}) for name, key in place.items()}
    headers = till.biller(network=False, **here)
    assert len((await till.get("/v1/invoices", headers)).json()["items"]) == 1
    assert (await till.get(f"/v1/invoices/{invoice['invoice_id']}", headers)).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_minor": -1},
        {"amount_minor": 10.5},
        {"currency": "rub"},
        {"currency": "roubles"},
        {"valid_from": "soon"},
        {"service_code": ""},
        {"kind": "gift"},
        {"discount": 1},
        {"centre_id": "Canaryova"},
    ],
)
async def test_an_invalid_price_is_refused_and_not_echoed(till: Till, changes: dict[str, Any]) -> None:
    answer = await till.set_price(**changes)
    assert answer.status_code == 422
    assert "Canaryova" not in answer.text


@pytest.mark.parametrize(
    "body", [{"amount_minor": 0}, {"amount_minor": "1"}, {"amount_minor": 1.5}, {"card": "4"}]
)
async def test_an_invalid_payment_is_refused(till: Till, body: dict[str, Any]) -> None:
    invoice = await till.invoice()
    answer = await till.post(f"/v1/invoices/{invoice['invoice_id']}/payments", body, till.patient())
    assert answer.status_code == 422


async def test_lists_come_in_pages(till: Till) -> None:
    for _ in range(5):
        await till.complete_visit()
    seen: list[str] = []
    cursor: str | None = None
    while True:
        query: dict[str, Any] = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await till.get("/v1/invoices", **query)).json()
        seen += [item["number"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [f"2026-{n:06d}" for n in range(1, 6)]


async def test_invoices_are_found_by_patient_and_status(till: Till) -> None:
    payment, _ = await till.paid()
    await till.complete_visit()
    [paid] = (await till.get("/v1/invoices", status="paid")).json()["items"]
    assert paid["invoice_id"] == payment["invoice_id"]
    assert len((await till.get("/v1/invoices", patient_id=str(till.patient_id))).json()["items"]) == 2
    assert (await till.get("/v1/invoices", patient_id=ANY)).json()["items"] == []
    assert (await till.get("/v1/invoices", status="lost")).status_code == 422


async def test_what_a_notification_says_is_in_no_log_line_metric_or_error(till: Till) -> None:
    lines = io.BytesIO()
    before = structlog.get_config()
    telemetry.configure_logging("billing", "DEBUG", stream=lines)
    try:
        payment = await till.start_payment((await till.invoice())["invoice_id"])
        for subject in (till.intent(payment, description="Canaryova"), till.intent(description="Canaryova")):
            await till.notify("payment_intent.succeeded", subject)
        await till.process()
        metrics = (await till.billing.http.get("/metrics")).text
        listed = (await till.get("/v1/payments/notifications")).text
    finally:
        structlog.configure(**before)
    assert b"http_request" in lines.getvalue()
    for told in (lines.getvalue().decode(), metrics, listed):
        assert "Canaryova" not in told
        assert str(till.patient_id) not in told
