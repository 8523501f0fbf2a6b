"""Merged patients: what one person owes and has paid, under any of their records; and apart again after a mistake."""

from typing import Any
from uuid import UUID

import pytest
from clinic_shared.ids import uuid7

from .conftest import PRICE, Till
from .test_advances import paid_advance
from .test_prices import cover, package

__all__ = ["package"]


@pytest.fixture
async def double(till: Till) -> UUID:
    """A second record of the till's patient."""
    made = uuid7()
    for patient_id in (till.patient_id, made):
        await till.billing.deliver_example("patients.patient-registered.v1", patient_id=str(patient_id))
    return made


async def ids(till: Till, patient_id: UUID, headers: dict[str, str] | None = None) -> list[str]:
    answer = await till.get("/v1/invoices", headers, patient_id=str(patient_id))
    return [item["invoice_id"] for item in answer.json()["items"]]


async def test_the_invoices_of_both_records_are_seen_under_either(till: Till, double: UUID) -> None:
    made = [(await till.invoice())["invoice_id"]]
    made.append((await till.invoice(patient_id=str(double)))["invoice_id"])
    merge_id = await till.billing.tell_of_merge(double, till.patient_id)
    # A visit of the replaced record that is told of later.
    made.append((await till.invoice(patient_id=str(double)))["invoice_id"])
    assert await ids(till, till.patient_id) == made == await ids(till, double)
    await till.billing.tell_of_merge(double, till.patient_id, merge_id=merge_id, undone=True)
    # Told late, of what was before: changes nothing.
    await till.billing.tell_of_merge(double, till.patient_id, merge_id=merge_id)
    assert await ids(till, till.patient_id) == made[:1]
    assert await ids(till, double) == made[1:]


async def test_a_patient_sees_and_pays_what_their_records_owe_and_nobody_elses(
    till: Till, double: UUID
) -> None:
    invoice = await till.invoice(patient_id=str(double))
    records = frozenset({till.patient_id, double})

    def headers(patient_id: UUID, **claims: Any) -> dict[str, str]:
        return till.billing.headers(till.billing.principal("patient", patient_id=patient_id, **claims))

    stranger, person = headers(uuid7()), headers(till.patient_id, patient_records=records)
    await till.billing.tell_of_merge(double, till.patient_id)
    assert await ids(till, till.patient_id, stranger) == []
    path = f"/v1/invoices/{invoice['invoice_id']}"
    assert (await till.get(path, stranger)).status_code == 404
    assert (await till.post(f"{path}/payments", {}, stranger)).status_code == 404
    assert await ids(till, till.patient_id, person) == [invoice["invoice_id"]]
    assert (await till.post(f"{path}/payments", {}, person)).status_code == 201


async def test_a_webhook_that_comes_after_the_merge_pays_the_invoice_of_the_replaced_record(
    till: Till, double: UUID
) -> None:
    invoice = await till.invoice(patient_id=str(double))
    headers = till.billing.headers(till.billing.principal("patient", patient_id=double))
    payment = (await till.post(f"/v1/invoices/{invoice['invoice_id']}/payments", {}, headers)).json()
    await till.billing.tell_of_merge(double, till.patient_id)
    await till.notify("payment_intent.succeeded", till.intent(payment))
    await till.process()
    [seen] = (await till.get("/v1/invoices", patient_id=str(till.patient_id))).json()["items"]
    assert (seen["invoice_id"], seen["status"]) == (invoice["invoice_id"], "paid")
    await till.assert_books_are_right()


async def test_money_in_advance_of_one_record_settles_what_the_other_owes(till: Till, double: UUID) -> None:
    deposit = await paid_advance(till, 1000)
    invoice = await till.invoice(patient_id=str(double))
    path, body = f"/v1/invoices/{invoice['invoice_id']}/advances", {"advance_id": deposit["invoice_id"]}
    assert (await till.post(path, body)).json()["type"].endswith("/not-an-advance")
    merge_id = await till.billing.tell_of_merge(double, till.patient_id)
    assert (await till.post(path, body)).json()["paid_minor"] == 1000
    await till.billing.tell_of_merge(double, till.patient_id, merge_id=merge_id, undone=True)
    assert (await till.read_invoice(invoice["invoice_id"]))["paid_minor"] == 1000
    await till.assert_books_are_right()


async def test_what_is_asked_in_advance_of_a_replaced_record_is_asked_of_the_one_in_use(
    till: Till, double: UUID
) -> None:
    await till.billing.tell_of_merge(double, till.patient_id)
    asked = await paid_advance(till, 1000, patient_id=str(double))
    assert asked["patient_id"] == str(till.patient_id)


async def test_a_package_bought_under_one_record_is_used_by_visits_of_the_other(
    till: Till, double: UUID, package: str
) -> None:
    body = {"patient_id": str(till.patient_id), "department_id": str(till.department_id)}
    await till.settle((await till.post(f"/v1/prices/packages/{package}/sales", body)).json())
    assert (await till.invoice(patient_id=str(double)))["total_minor"] == PRICE
    await till.billing.tell_of_merge(double, till.patient_id)
    taken = await till.invoice(patient_id=str(double))
    assert (taken["total_minor"], taken["outstanding_minor"]) == (200_000, 0)
    await till.assert_books_are_right()


async def test_who_covers_one_record_covers_the_person(till: Till, double: UUID) -> None:
    await till.set_price(payer="fictitious-insurer", amount_minor=PRICE - 1)
    assert (await cover(till)).status_code == 201
    assert (await till.invoice(patient_id=str(double)))["payer"] == "patient"
    await till.billing.tell_of_merge(double, till.patient_id)
    assert (await till.invoice(patient_id=str(double)))["payer"] == "fictitious-insurer"
