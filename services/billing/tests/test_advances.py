"""Money in advance, money given up, and the second pair of eyes."""

from typing import Any

import pytest
from clinic_billing import ledger, tables
from clinic_shared.ids import uuid7
from sqlalchemy.exc import IntegrityError

from .conftest import PRICE, Till


async def advance(till: Till, amount_minor: int = PRICE, **body: Any) -> dict[str, Any]:
    asked = {
        "patient_id": str(till.patient_id),
        "centre_id": str(till.centre_id),
        "department_id": str(till.department_id),
        "amount_minor": amount_minor,
    }
    answer = await till.post("/v1/invoices/advances", asked | body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def paid_advance(till: Till, amount_minor: int = PRICE, **body: Any) -> dict[str, Any]:
    made = await advance(till, amount_minor, **body)
    payment = await till.start_payment(made["invoice_id"])
    await till.notify("payment_intent.succeeded", till.intent(payment))
    await till.process()
    return await till.read_invoice(made["invoice_id"])


async def balance(till: Till, account: str) -> int:
    async with till.billing.runtime.database.transaction() as tx:
        return await ledger.balance_of(tx, account)


@pytest.fixture
async def known(till: Till) -> Till:
    await till.billing.deliver_example("patients.patient-registered.v1", patient_id=str(till.patient_id))
    return till


async def test_nobody_owes_an_advance_and_what_was_paid_of_it_is_owed_to_the_patient(known: Till) -> None:
    made = await advance(known)
    assert (made["kind"], made["available_minor"]) == ("advance", 0)
    assert await known.rows(tables.ledger_movement) == []
    paid = await paid_advance(known, 1000)
    assert paid["available_minor"] == 1000
    assert await balance(known, f"advance:{paid['invoice_id']}") == -1000
    assert await balance(known, f"revenue:{known.legal_entity_id}") == 0
    await known.assert_books_are_right()


async def test_a_prepaid_visit_is_settled_when_it_has_been_rendered(known: Till) -> None:
    appointment_id = uuid7()
    prepaid = await paid_advance(known, PRICE + 700, appointment_id=str(appointment_id))
    await known.deliver_visit("completed", appointment_id)
    [issued] = (await known.get("/v1/invoices", appointment_id=str(appointment_id))).json()["items"]
    assert (issued["status"], issued["outstanding_minor"]) == ("paid", 0)
    assert (await known.read_invoice(prepaid["invoice_id"]))["available_minor"] == 700
    [told] = await known.billing.events("billing.invoice-issued.v1")
    assert told.data["prepaid_minor"] == PRICE
    [applied] = await known.billing.events("billing.advance-applied.v1")
    assert (applied.data["amount_minor"], applied.data["paid_in_full"]) == (PRICE, True)
    assert await balance(known, f"advance:{prepaid['invoice_id']}") == -700
    await known.assert_books_are_right()


async def test_a_deposit_is_set_off_by_hand_and_never_beyond_what_is_left_of_it(known: Till) -> None:
    deposit, invoice = await paid_advance(known, 1000), await known.invoice()
    path, body = f"/v1/invoices/{invoice['invoice_id']}/advances", {"advance_id": deposit["invoice_id"]}
    over = await known.post(path, body | {"amount_minor": 1001})
    assert (over.status_code, over.json()["available_minor"]) == (422, 1000)
    settled = (await known.post(path, body)).json()
    assert (settled["status"], settled["paid_minor"]) == ("partly-paid", 1000)
    assert (await known.post(path, body)).json()["type"].endswith("/nothing-available")
    await known.assert_books_are_right()


async def test_an_advance_of_somebody_else_is_refused(known: Till) -> None:
    deposit = await paid_advance(known, 1000)
    invoice = await known.invoice(patient_id=str(uuid7()))
    path = f"/v1/invoices/{invoice['invoice_id']}/advances"
    answer = await known.post(path, {"advance_id": deposit["invoice_id"]})
    assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (422, "not-an-advance")


async def test_what_is_being_refunded_of_an_advance_can_t_be_set_off_too(known: Till) -> None:
    deposit, invoice = await paid_advance(known, 1000), await known.invoice()
    [payment] = (await known.get("/v1/payments", invoice_id=deposit["invoice_id"])).json()["items"]
    refunds = f"/v1/payments/{payment['payment_id']}/refunds"
    await known.post(refunds, {"amount_minor": 600, "reason_code": "mistake"})
    path, body = f"/v1/invoices/{invoice['invoice_id']}/advances", {"advance_id": deposit["invoice_id"]}
    assert (await known.post(path, body)).json()["paid_minor"] == 400
    nothing_left = await known.post(refunds, {"reason_code": "mistake"})
    assert nothing_left.json()["type"].endswith("/not-refundable")


async def test_a_refund_above_the_limit_waits_for_a_second_person(till: Till) -> None:
    payment, _ = await till.paid_much()
    asker, other = till.biller(), till.biller()
    path = f"/v1/payments/{payment['payment_id']}/refunds"
    refund = (await till.post(path, {"reason_code": "mistake"}, asker)).json()
    assert refund["status"] == "awaiting-approval"
    assert [c for c in await till.rows(tables.provider_call) if c["kind"] == "create-refund"] == []
    [waiting] = (await till.get("/v1/refunds", status="awaiting-approval")).json()["items"]
    decision = f"/v1/refunds/{waiting['refund_id']}/decision"
    asker.pop("Idempotency-Key")
    own = await till.post(decision, {"approved": True}, asker)
    assert (own.status_code, own.json()["type"].rpartition("/")[2]) == (409, "approved-by-oneself")
    assert (await till.post(decision, {"approved": True}, other)).json()["status"] == "pending"
    assert len([c for c in await till.rows(tables.provider_call) if c["kind"] == "create-refund"]) == 1
    again = await till.post(decision, {"approved": False})
    assert again.json()["type"].endswith("/already-decided")


async def test_the_limit_can_t_be_passed_in_slices(till: Till) -> None:
    payment, _ = await till.paid_much()
    path = f"/v1/payments/{payment['payment_id']}/refunds"
    statuses = [
        (await till.post(path, {"amount_minor": 600_000, "reason_code": "mistake"})).json()["status"]
        for _ in range(2)
    ]
    assert statuses == ["pending", "awaiting-approval"]


async def test_a_refund_that_was_turned_down_frees_its_amount(till: Till) -> None:
    payment, _ = await till.paid_much()
    path = f"/v1/payments/{payment['payment_id']}/refunds"
    refund = (await till.post(path, {"reason_code": "mistake"})).json()
    decided = await till.post(f"/v1/refunds/{refund['refund_id']}/decision", {"approved": False})
    assert (decided.json()["status"], decided.json()["failure_code"]) == ("failed", "not-approved")
    assert (await till.post(path, {"reason_code": "mistake"})).status_code == 201


async def test_the_database_refuses_one_person_in_both_roles(till: Till) -> None:
    payment, _ = await till.paid_much()
    await till.post(f"/v1/payments/{payment['payment_id']}/refunds", {"reason_code": "mistake"})
    with pytest.raises(IntegrityError, match="refund_four_eyes"):
        async with till.billing.runtime.database.transaction() as tx:
            await tx.execute(tables.refund.update().values(decided_by=tables.refund.c.requested_by))


async def test_a_small_write_off_is_booked_at_once(till: Till) -> None:
    invoice = await till.invoice()
    path = f"/v1/invoices/{invoice['invoice_id']}/write-offs"
    small = await till.post(path, {"amount_minor": 1000, "reason_code": "rounding"})
    assert small.json()["status"] == "booked"
    assert (await till.read_invoice(invoice["invoice_id"]))["outstanding_minor"] == PRICE - 1000
    await till.post(path, {"reason_code": "uncollectable"})
    given_up = await till.read_invoice(invoice["invoice_id"])
    assert (given_up["status"], given_up["outstanding_minor"]) == ("written-off", 0)
    assert await balance(till, f"written-off:{till.legal_entity_id}") == PRICE
    assert len((await till.get(path)).json()) == 2
    await till.assert_books_are_right()


async def test_a_large_write_off_waits_for_a_second_person_and_takes_what_is_left_then(till: Till) -> None:
    invoice = await till.much()
    path = f"/v1/invoices/{invoice['invoice_id']}/write-offs"
    asker = till.biller()
    asked = (await till.post(path, {"reason_code": "uncollectable"}, asker)).json()
    assert asked["status"] == "awaiting-approval"
    assert (await till.read_invoice(invoice["invoice_id"]))["outstanding_minor"] == invoice["total_minor"]
    decision = f"/v1/invoices/write-offs/{asked['write_off_id']}/decision"
    asker.pop("Idempotency-Key")
    assert (await till.post(decision, {"approved": True}, asker)).status_code == 409
    assert (await till.post(decision, {"approved": True})).json()["status"] == "booked"
    assert (await till.read_invoice(invoice["invoice_id"]))["status"] == "written-off"
    await till.assert_books_are_right()
