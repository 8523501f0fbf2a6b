"""Fiscal receipts: one for each movement of money, whoever dies wherever."""

import asyncio
import json
from collections import Counter
from typing import Any
from uuid import UUID

import pytest
from clinic_billing import ledger
from clinic_billing.accounts import moved
from clinic_billing.receipts import fiscalising
from clinic_billing.receipts.document import Document, Method, Tender
from clinic_billing.receipts.receipt import MOST_SUBMISSIONS
from clinic_billing.receipts.tables import receipt as receipt_table
from clinic_billing.tables import ledger_movement
from clinic_shared.ids import uuid7
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from .conftest import PRICE, Provider, Till

CRASH_POINTS = (
    "receipt.lease.after",
    "receipt.describe.after",
    "receipt.register.after",
    "receipt.report.after",
    "receipt.save.after",
)


class DiedError(Exception):
    pass


async def make_due(till: Till) -> None:
    async with till.billing.runtime.database.transaction() as tx:
        await tx.execute(text("UPDATE receipt SET next_attempt_at = now() WHERE status <> 'done'"))


async def fiscalise(till: Till, *, rounds: int = 8) -> None:
    for _ in range(rounds):
        await make_due(till)
        if not await fiscalising.fiscalise_due(till.billing.runtime):
            return


async def receipts(till: Till, **query: Any) -> list[dict[str, Any]]:
    return (await till.get("/v1/receipts", **query)).json()["items"]


async def registered(provider: Provider) -> list[dict[str, Any]]:
    """Return the documents that the register has really registered."""
    items = (await provider.http.get("/_control/atol/documents")).json()["items"]
    return [document for document in items if document["registered"]]


async def behave(provider: Provider, **behaviour: Any) -> None:
    answer = await provider.http.put("/_control/atol/behaviour", json=behaviour)
    assert answer.status_code == 204


async def paid(provider: Provider, **body: Any) -> dict[str, Any]:
    payment = await provider.started(**body)
    await provider.pay(payment)
    return payment


async def assert_one_receipt_per_movement(provider: Provider, movements: int) -> None:
    """At the register and here: each movement of money once, with its amount."""
    till = provider.till
    of_movement = Counter(document["external_id"][:36] for document in await registered(provider))
    assert set(of_movement.values()) == {1}
    known = await till.rows(receipt_table)
    assert {str(row["receipt_id"]) for row in known if row["status"] == "done"} == set(of_movement)
    assert len(of_movement) == movements
    async with till.billing.runtime.database.transaction() as tx:
        without = await tx.fetch_all(
            text(
                "SELECT movement_id FROM ledger_movement LEFT JOIN receipt ON receipt_id = movement_id WHERE kind IN "
                "('payment-received', 'payment-refunded', 'advance-applied') AND receipt_id IS NULL"
            )
        )
    assert list(without) == []


async def test_a_payment_and_its_refund_have_a_receipt_each(provider: Provider) -> None:
    till, payment = provider.till, await paid(provider, receipt_to="patient@example.org")
    path = f"/v1/payments/{payment['payment_id']}/refunds"
    await till.post(path, {"amount_minor": 1000, "reason_code": "mistake"})
    await provider.call()
    await provider.quiet()
    await fiscalise(till)
    await assert_one_receipt_per_movement(provider, 2)
    sale, back = await receipts(till, payment_id=payment["payment_id"])
    assert (sale["status"], sale["operation"], sale["amount_minor"]) == ("done", "sell", PRICE)
    assert (back["operation"], back["amount_minor"]) == ("sell-refund", 1000)
    assert sale["items"][0]["method"] == back["items"][0]["method"] == "full_payment"
    assert sale["document_sign"]
    sent = [document["about"]["client"] for document in await registered(provider)]
    assert sent == [{"email": "patient@example.org"}] * 2
    assert len(await till.billing.events("billing.receipt-fiscalised.v1")) == 2


async def test_a_prepaid_visit_has_two_receipts(provider: Provider) -> None:
    till, appointment_id = provider.till, uuid7()
    await till.billing.deliver_example("patients.patient-registered.v1", patient_id=str(till.patient_id))
    asked = {
        "patient_id": str(till.patient_id),
        "centre_id": str(till.centre_id),
        "department_id": str(till.department_id),
        "amount_minor": PRICE,
        "appointment_id": str(appointment_id),
        "service_code": "dermatology-consultation",
    }
    advance = (await till.post("/v1/invoices/advances", asked)).json()
    payment = await till.start_payment(advance["invoice_id"])
    await provider.call()
    await provider.pay(await till.read_payment(payment["payment_id"]))
    await fiscalise(till)
    [prepayment] = await receipts(till)
    assert prepayment["items"][0]["method"] == "full_prepayment"
    await till.deliver_visit("completed", appointment_id)
    await fiscalise(till)
    _, offset = await receipts(till)
    assert (offset["items"][0]["method"], offset["payments"]) == ("full_payment", {"prepaid": PRICE})
    await assert_one_receipt_per_movement(provider, 2)


async def test_paying_in_parts_is_a_credit_and_its_repayment(provider: Provider) -> None:
    till, first = provider.till, await paid(provider, amount_minor=1000)
    rest = await till.start_payment(first["invoice_id"])
    await provider.call()
    await provider.pay(await till.read_payment(rest["payment_id"]))
    await fiscalise(till)
    part, whole = await receipts(till)
    assert part["payments"] == {"electronic": 1000, "credit": PRICE - 1000}
    assert (part["items"][0]["method"], part["amount_minor"]) == ("partial_payment", PRICE)
    assert (whole["items"][0]["method"], whole["amount_minor"]) == ("credit_payment", PRICE - 1000)
    await assert_one_receipt_per_movement(provider, 2)


@pytest.mark.parametrize("label", CRASH_POINTS)
async def test_whoever_dies_wherever_a_movement_has_one_receipt(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    died: list[str] = []

    def dies(passed: str) -> None:
        if passed == label and not died:
            died.append(label)
            raise DiedError

    await paid(provider)
    monkeypatch.setattr(fiscalising, "crash_point", dies)
    for _ in range(8):
        await make_due(provider.till)
        try:
            await fiscalising.fiscalise_due(provider.till.billing.runtime)
        except DiedError:
            continue
    assert died == [label]
    await assert_one_receipt_per_movement(provider, 1)


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 502, "after_accepting": True}])
async def test_a_registrar_that_is_away_or_whose_answer_is_lost_is_asked_again(
    provider: Provider, fault: dict[str, Any]
) -> None:
    await paid(provider)
    await fiscalising.fiscalise_due(provider.till.billing.runtime)
    for _ in range(3):
        await provider.fail_next(vendor="atol", **fault)
        await fiscalise(provider.till, rounds=2)
    await fiscalise(provider.till)
    await assert_one_receipt_per_movement(provider, 1)


async def test_two_workers_register_a_receipt_once(provider: Provider) -> None:
    await paid(provider)
    for _ in range(4):
        await make_due(provider.till)
        runtime = provider.till.billing.runtime
        await asyncio.gather(*(fiscalising.fiscalise_due(runtime) for _ in range(3)))
    await assert_one_receipt_per_movement(provider, 1)


async def test_a_slow_register_is_waited_for(provider: Provider) -> None:
    await behave(provider, waits=2)
    await paid(provider)
    await fiscalise(provider.till, rounds=2)
    [waiting] = await receipts(provider.till)
    assert waiting["status"] == "sent"
    await fiscalise(provider.till)
    await assert_one_receipt_per_movement(provider, 1)


async def test_a_document_that_the_register_failed_is_submitted_anew(provider: Provider) -> None:
    await behave(provider, fails=1)
    await paid(provider)
    await fiscalise(provider.till)
    [done] = await receipts(provider.till)
    assert (done["status"], done["submission"]) == ("done", 2)
    await assert_one_receipt_per_movement(provider, 1)


async def test_a_receipt_that_keeps_failing_waits_for_a_person_who_retries_or_corrects_it(
    provider: Provider,
) -> None:
    till = provider.till
    await behave(provider, fails=MOST_SUBMISSIONS + 1)
    await paid(provider)
    await fiscalise(till)
    [failed] = await receipts(till, status="failed")
    assert failed["error"] == "atol--3804"
    path = f"/v1/receipts/{failed['receipt_id']}"
    assert (await till.post(f"{path}/retry")).json()["status"] == "pending"
    not_failed = await till.post(f"{path}/retry")
    assert not_failed.json()["type"].endswith("/receipt-not-failed")
    await fiscalise(till)
    corrected = await till.post(f"{path}/correction", {"base_on": "2026-03-02"})
    assert corrected.json()["operation"] == "sell-correction"
    await fiscalise(till)
    [done] = await receipts(till, status="done")
    assert done["operation"] == "sell-correction"
    await assert_one_receipt_per_movement(provider, 1)


async def test_a_register_that_reports_another_amount_is_not_believed(provider: Provider) -> None:
    await behave(provider, lie=True)
    await paid(provider)
    await fiscalise(provider.till, rounds=4)
    [open_still] = await receipts(provider.till)
    assert (open_still["status"], open_still["error"]) == ("sent", "registered with another amount")
    await behave(provider)
    await fiscalise(provider.till)
    await assert_one_receipt_per_movement(provider, 1)


async def test_a_receipt_that_is_late_is_told_once_and_measured(provider: Provider) -> None:
    till = provider.till
    await provider.fail_next(vendor="atol", status=503, times=50)
    await paid(provider)
    await fiscalise(till, rounds=2)
    till.billing.clock.advance(minutes=16)
    for _ in range(2):
        await till.billing.fire_timers()
    [told] = await till.billing.events("billing.receipt-overdue.v1")
    assert told.data["amount_minor"] == PRICE
    async with till.billing.runtime.database.transaction() as tx:
        await fiscalising.measure_receipts(till.billing.runtime, tx)
    [oldest] = next(iter(fiscalising.OLDEST_SECONDS.collect())).samples
    assert oldest.value >= 900


async def test_a_movement_in_another_currency_owes_no_receipt(till: Till) -> None:
    async with till.billing.runtime.database.transaction() as tx:
        await ledger.book(
            tx,
            "payment-received",
            moved(to="cash:razorpay", of="receivable:x", by=5),
            source_id=uuid7(),
            legal_entity_id=uuid7(),
            currency="INR",
        )
    assert await till.rows(receipt_table) == []


async def test_the_movement_itself_owes_the_receipt_whoever_books_it(till: Till) -> None:
    async with till.billing.runtime.database.transaction() as tx:
        await ledger.book(
            tx,
            "payment-received",
            moved(to="cash:stripe", of="receivable:x", by=5),
            source_id=uuid7(),
            legal_entity_id=uuid7(),
            currency="RUB",
        )
    [owed] = await till.rows(receipt_table)
    [movement] = await till.rows(ledger_movement)
    assert (owed["receipt_id"], owed["status"]) == (movement["movement_id"], "pending")


async def test_what_is_registered_can_be_neither_changed_nor_deleted(provider: Provider) -> None:
    await paid(provider)
    await fiscalise(provider.till)
    for statement in ("UPDATE receipt SET status = 'pending'", "DELETE FROM receipt"):
        with pytest.raises(IntegrityError, match="a receipt is owed"):
            async with provider.till.billing.runtime.database.transaction() as tx:
                await tx.execute(text(statement))


async def test_without_a_fiscal_profile_in_production_a_receipt_waits_for_it(provider: Provider) -> None:
    till = provider.till
    desk = till.billing.runtime.get(fiscalising.Desk)
    desk.fallback = None
    await paid(provider)
    await fiscalise(till, rounds=2)
    [waiting] = await receipts(till)
    assert waiting["error"] == "no-fiscal-profile"
    profile = {
        "inn": "0000000000",
        "taxation": "osn",
        "email": "receipts@clinic.example",
        "payment_address": "https://clinic.example",
        "group_code": "fictitious-group",
    }
    path = f"/v1/receipts/profiles/{till.legal_entity_id}"
    answer = await till.billing.http.put(path, json=profile, headers=till.biller())
    assert answer.status_code == 200, answer.text
    await fiscalise(till)
    await assert_one_receipt_per_movement(provider, 1)
    assert (await till.get(path)).json()["inn"] == "0000000000"


async def test_a_patient_sees_their_own_receipts_only(provider: Provider) -> None:
    till = provider.till
    await paid(provider)
    await fiscalise(till)
    [mine] = (await till.get("/v1/receipts", till.patient())).json()["items"]
    other = till.billing.headers(till.billing.principal("patient", patient_id=UUID(int=7)))
    assert (await till.get("/v1/receipts", other)).json()["items"] == []
    assert (await till.get(f"/v1/receipts/{mine['receipt_id']}", other)).status_code == 404


def test_a_document_survives_its_storage() -> None:
    stored = {
        "operation": "sell",
        "items": [{"name": "x", "quantity": 2, "price_minor": 5, "method": "advance"}],
        "payments": {"cash": 10},
        "currency": "RUB",
        "contact": None,
        "correction": None,
    }
    document = Document.from_json(stored)
    assert (document.balanced, document.items[0].method) == (True, Method.ADVANCE)
    assert document.payments == {Tender.CASH: 10}
    assert Document.from_json(json.loads(json.dumps(document.to_json()))) == document
