"""Prices and the invoices that follow from them."""

import asyncio
from uuid import UUID

import pytest
from clinic_billing import tables
from clinic_shared.ids import uuid7
from clinic_shared.testing import ServiceHarness
from sqlalchemy import insert
from sqlalchemy.dialects.postgresql import Range
from sqlalchemy.exc import IntegrityError

from .conftest import PRICE, Till


async def waiting(till: Till) -> list[str]:
    items = (await till.get("/v1/invoices/awaiting-price")).json()["items"]
    return [item["appointment_id"] for item in items]


async def test_a_completed_visit_is_invoiced_at_the_centre_s_price(till: Till) -> None:
    invoice = await till.invoice()
    assert (invoice["status"], invoice["total_minor"], invoice["currency"]) == ("issued", PRICE, "RUB")
    assert invoice["lines"] == [
        {
            "service_code": "dermatology-consultation",
            "quantity": 1,
            "unit_amount_minor": PRICE,
            "amount_minor": PRICE,
            "list_unit_amount_minor": None,
            "discount_code": None,
        }
    ]
    assert (invoice["number"], invoice["due_on"]) == ("2026-000001", "2026-03-09")
    [event] = await till.billing.events("billing.invoice-issued.v1")
    assert event.data["invoice_id"] == invoice["invoice_id"]
    assert event.partition_key == till.patient_id
    await till.assert_books_are_right()


async def test_a_visit_is_invoiced_once_however_often_it_is_told(till: Till) -> None:
    appointment_id = await till.complete_visit()
    await till.deliver_visit("completed", appointment_id)
    assert len(await till.rows(tables.invoice)) == 1


async def test_numbers_are_unique_in_order_and_of_the_legal_entity(till: Till) -> None:
    await asyncio.gather(*(till.complete_visit() for _ in range(8)))
    numbers = sorted(row["number"] for row in await till.rows(tables.invoice))
    assert numbers == [f"2026-{n:06d}" for n in range(1, 9)]
    other = Till(till.billing)
    await other.open_centre()
    await other.set_price()
    assert (await other.invoice())["number"] == "2026-000001"


async def test_a_visit_without_a_price_waits_for_it_and_is_not_lost(till: Till) -> None:
    appointment_id = await till.complete_visit(service_code="dietetics-consultation")
    assert await waiting(till) == [str(appointment_id)]
    await till.billing.deliver_example(
        "scheduling.service-defined.v1", service_id=str(uuid7()), code="dietetics-consultation"
    )
    assert (await till.set_price(service_code="dietetics-consultation", amount_minor=70)).status_code == 201
    await till.billing.fire_timers()
    assert await waiting(till) == []
    [invoice] = (await till.get("/v1/invoices", appointment_id=str(appointment_id))).json()["items"]
    assert invoice["total_minor"] == 70


async def test_a_visit_of_an_unknown_centre_waits_for_the_centre(billing: ServiceHarness) -> None:
    till = Till(billing)
    await till.complete_visit()
    await till.open_centre()
    await billing.fire_timers()
    assert len(await waiting(till)) == 1
    await billing.deliver_example("scheduling.service-defined.v1")
    await till.set_price()
    await billing.fire_timers()
    assert await waiting(till) == []


async def test_more_visits_than_a_batch_are_all_invoiced(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clinic_billing.invoicing.BATCH", 2)
    for _ in range(5):
        await till.complete_visit(service_code="dietetics-consultation")
    await till.billing.deliver_example(
        "scheduling.service-defined.v1", service_id=str(uuid7()), code="dietetics-consultation"
    )
    await till.set_price(service_code="dietetics-consultation")
    await till.billing.fire_timers()
    assert await waiting(till) == []
    assert len(await till.rows(tables.invoice)) == 5


async def test_a_price_and_a_visit_at_the_same_moment_always_find_each_other(till: Till) -> None:
    for number in range(10):
        code = f"race-{number}"
        await till.billing.deliver_example(
            "scheduling.service-defined.v1", service_id=str(uuid7()), code=code
        )
        await asyncio.gather(
            till.set_price(service_code=code), till.complete_visit(service_code=code), till.complete_visit()
        )
        await till.billing.fire_timers()
    assert await waiting(till) == []


async def test_the_price_is_that_of_the_day_of_the_visit_where_the_visit_was(till: Till) -> None:
    assert (await till.set_price(valid_from="2026-03-04", amount_minor=9)).status_code == 201
    # A quarter past nine in the evening in London is past midnight in Moscow.
    late = await till.invoice(starts_at="2026-03-03T21:15:00Z")
    early = await till.invoice(starts_at="2026-03-03T20:45:00Z")
    assert (late["total_minor"], early["total_minor"]) == (9, PRICE)


async def test_a_new_price_ends_the_one_before_and_stops_where_a_later_one_begins(till: Till) -> None:
    await till.set_price(valid_from="2026-09-01", amount_minor=3)
    await till.set_price(valid_from="2026-05-01", amount_minor=2)
    listed = (await till.get("/v1/prices", centre_id=str(till.centre_id))).json()["items"]
    spans = sorted((p["valid_from"], p["valid_until"], p["amount_minor"]) for p in listed)
    assert spans == [
        ("2026-01-01", "2026-05-01", PRICE),
        ("2026-05-01", "2026-09-01", 2),
        ("2026-09-01", None, 3),
    ]
    [valid] = (await till.get("/v1/prices", centre_id=str(till.centre_id), on="2026-08-31")).json()["items"]
    assert valid["amount_minor"] == 2


async def test_two_prices_of_one_day_are_refused(till: Till) -> None:
    answer = await till.set_price(amount_minor=1)
    assert answer.status_code == 409
    assert answer.json()["type"].endswith("/price-already-set")


async def test_of_ten_prices_of_one_day_at_once_one_is_set(till: Till) -> None:
    answers = await asyncio.gather(
        *(till.set_price(valid_from="2026-06-01", amount_minor=n) for n in range(10))
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9


async def test_the_database_refuses_overlapping_prices_whatever_the_code_does(till: Till) -> None:
    with pytest.raises(IntegrityError, match="price_one_at_a_time"):
        async with till.billing.runtime.database.transaction() as tx:
            await tx.execute(
                insert(tables.price).values(
                    price_id=uuid7(),
                    centre_id=till.centre_id,
                    kind="service",
                    service_code="dermatology-consultation",
                    amount_minor=1,
                    currency="RUB",
                    valid=Range(tx.now.date(), None, bounds="[)"),
                    set_at=tx.now,
                )
            )


async def test_a_price_in_another_currency_or_of_something_unknown_is_refused(till: Till) -> None:
    assert (await till.set_price(currency="EUR")).json()["type"].endswith("/currency-mismatch")
    for unknown in ({"service_code": "unheard-of"}, {"centre_id": str(uuid7())}):
        answer = await till.set_price(valid_from="2026-07-01", **unknown)
        assert answer.status_code == 409
        assert answer.json()["type"].endswith("/reference-not-yet-known")


async def test_a_free_service_is_invoiced_and_paid_at_once(till: Till) -> None:
    await till.set_price(valid_from="2026-02-01", amount_minor=0)
    invoice = await till.invoice()
    assert (invoice["status"], invoice["outstanding_minor"]) == ("paid", 0)
    answer = await till.post(f"/v1/invoices/{invoice['invoice_id']}/payments", {}, till.patient())
    assert answer.json()["type"].endswith("/nothing-to-pay")
    await till.assert_books_are_right()


async def test_a_waiting_visit_that_is_withdrawn_is_not_invoiced(till: Till) -> None:
    appointment_id = await till.complete_visit(service_code="dietetics-consultation")
    await till.deliver_visit("cancelled", appointment_id)
    assert await waiting(till) == []


@pytest.mark.parametrize("state", ["cancelled", "missed"])
async def test_an_invoice_of_a_visit_that_is_withdrawn_waits_for_a_person(till: Till, state: str) -> None:
    invoice = await till.invoice()
    await till.deliver_visit(state, UUID(invoice["appointment_id"]))
    noted = await till.read_invoice(invoice["invoice_id"])
    assert (noted["attention"], noted["status"]) == (f"visit-{state}", "issued")


async def test_a_lab_order_is_invoiced_for_the_tests_that_have_a_price(till: Till) -> None:
    await till.set_price(kind="lab-test", service_code="58410-2", amount_minor=500)
    await till.order_tests("58410-2", "58410-2", "2345-7")
    [invoice] = (await till.get("/v1/invoices")).json()["items"]
    assert invoice["appointment_id"] is None
    [line] = invoice["lines"]
    assert (line["service_code"], line["quantity"], invoice["total_minor"]) == ("58410-2", 2, 1000)
    await till.assert_books_are_right()


async def test_a_lab_order_without_prices_is_none_of_billing_s_business(till: Till) -> None:
    await till.order_tests("58410-2")
    assert await till.rows(tables.invoice) == []


async def test_the_invoice_of_a_cancelled_lab_order_waits_for_a_person(till: Till) -> None:
    await till.set_price(kind="lab-test", service_code="58410-2", amount_minor=500)
    await till.order_tests("58410-2")
    await till.cancel_order(await till.order_tests("58410-2"))
    other, noted = (await till.get("/v1/invoices")).json()["items"]
    assert (other["attention"], noted["attention"]) == (None, "lab-order-cancelled")
    assert (noted["status"], noted["outstanding_minor"]) == ("issued", 500)
    await till.assert_books_are_right()


async def test_a_lab_order_that_is_told_of_after_its_cancellation_is_not_invoiced(till: Till) -> None:
    await till.set_price(kind="lab-test", service_code="58410-2", amount_minor=500)
    lab_order_id = uuid7()
    await till.cancel_order(lab_order_id)
    await till.order_tests("58410-2", lab_order_id=lab_order_id)
    assert await till.rows(tables.invoice) == []
