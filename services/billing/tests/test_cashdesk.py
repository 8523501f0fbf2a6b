"""The cash desk: shifts, cash and the terminal as movements, and what must be in the drawer."""

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from clinic_billing import ledger, tables
from clinic_billing.receipts.tables import receipt
from clinic_shared.ids import uuid7
from clinic_shared.testing import ServiceHarness

from .conftest import PRICE, Till


@dataclass
class Desk:
    till: Till
    desk_id: str

    async def post(self, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        return await self.till.post(f"/v1/payments/desks/{self.desk_id}/{path}", body)

    async def open(self, counted_minor: int = 0) -> None:
        answer = await self.post("shifts", {"counted_minor": counted_minor})
        assert answer.status_code == 201, answer.text

    async def take(self, invoice_id: str, tender: str = "cash", **body: Any) -> httpx.Response:
        return await self.post("payments", {"invoice_id": invoice_id, "tender": tender} | body)

    async def cash(self) -> int:
        answer = await self.till.get(f"/v1/payments/desks/{self.desk_id}/drawer")
        return int(answer.json()["cash_minor"])


@pytest.fixture
async def desk(till: Till) -> Desk:
    answer = await till.post("/v1/payments/desks", {"centre_id": str(till.centre_id), "name": "Desk 1"})
    assert answer.status_code == 201, answer.text
    return Desk(till, answer.json()["desk_id"])


def problem(answer: httpx.Response) -> str:
    return str(answer.json()["type"]).rpartition("/")[2]


async def test_cash_is_received_at_once_booked_in_the_drawer_and_owes_a_receipt(desk: Desk) -> None:
    await desk.open()
    invoice = await desk.till.invoice()
    taken = (await desk.take(invoice["invoice_id"])).json()
    assert (taken["status"], taken["provider"], taken["amount_minor"]) == ("succeeded", "cash", PRICE)
    assert (await desk.till.read_invoice(invoice["invoice_id"]))["status"] == "paid"
    assert await desk.cash() == PRICE
    assert len(await desk.till.billing.events("billing.payment-received.v1")) == 1
    assert len(await desk.till.rows(receipt)) == 1
    await desk.till.assert_books_are_right()


async def test_without_a_shift_no_money_is_taken(desk: Desk) -> None:
    invoice = await desk.till.invoice()
    assert problem(await desk.take(invoice["invoice_id"])) == "no-shift-open"


async def test_ten_openings_at_once_are_one_shift(desk: Desk) -> None:
    answers = await asyncio.gather(*(desk.post("shifts", {"counted_minor": 0}) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9


async def test_a_shift_is_closed_with_what_is_missing_booked(desk: Desk) -> None:
    await desk.open()
    await desk.take((await desk.till.invoice())["invoice_id"])
    terminal = await desk.take((await desk.till.invoice())["invoice_id"], "card-terminal", amount_minor=700)
    assert terminal.json()["provider"] == "card-terminal"
    closed = (await desk.post("shifts/close", {"counted_minor": PRICE - 50})).json()
    assert (closed["expected_minor"], closed["counted_minor"], closed["terminal_minor"]) == (
        PRICE,
        PRICE - 50,
        700,
    )
    assert await desk.cash() == PRICE - 50
    async with desk.till.billing.runtime.database.transaction() as tx:
        assert await ledger.balance_of(tx, f"desk-difference:{desk.till.legal_entity_id}") == 50
        assert await ledger.balance_of(tx, f"cash:terminal:{desk.desk_id}") == 700
    await desk.till.assert_books_are_right()
    assert problem(await desk.post("shifts/close", {"counted_minor": 0})) == "no-shift-open"
    [kept] = (await desk.till.get(f"/v1/payments/desks/{desk.desk_id}/shifts")).json()["items"]
    assert kept == closed


async def test_cash_is_carried_from_and_to_the_safe_and_never_beyond_what_is_there(desk: Desk) -> None:
    await desk.open()
    await desk.post("cash", {"direction": "in", "amount_minor": 1000})
    over = await desk.post("cash", {"direction": "out", "amount_minor": 1001})
    assert (problem(over), over.json()["cash_minor"]) == ("not-enough-cash", 1000)
    assert (await desk.post("cash", {"direction": "out", "amount_minor": 400})).json()["cash_minor"] == 600
    await desk.till.assert_books_are_right()


async def test_a_refund_of_cash_is_handed_out_by_a_cashier_once(desk: Desk) -> None:
    await desk.open()
    taken = (await desk.take((await desk.till.invoice())["invoice_id"])).json()
    asked = await desk.till.post(
        f"/v1/payments/{taken['payment_id']}/refunds", {"amount_minor": 1000, "reason_code": "mistake"}
    )
    refund_id = asked.json()["refund_id"]
    assert asked.json()["status"] == "pending"
    answers = await asyncio.gather(*(desk.post(f"refunds/{refund_id}") for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409]
    assert await desk.cash() == PRICE - 1000
    assert len(await desk.till.billing.events("billing.payment-refunded.v1")) == 1
    await desk.till.assert_books_are_right()


async def test_a_payment_that_is_under_way_online_doesn_t_keep_a_patient_from_paying_cash(desk: Desk) -> None:
    await desk.open()
    invoice = await desk.till.invoice()
    await desk.till.start_payment(invoice["invoice_id"])
    answer = await desk.take(invoice["invoice_id"])
    assert answer.status_code == 201, answer.text
    assert "cancel-intent" in {call["kind"] for call in await desk.till.rows(tables.provider_call)}


async def test_a_desk_takes_no_money_for_another_legal_entity(desk: Desk, billing: ServiceHarness) -> None:
    await desk.open()
    elsewhere = Till(billing)
    await elsewhere.open_centre()
    assert (await elsewhere.set_price()).status_code == 201
    invoice = await elsewhere.invoice()
    assert problem(await desk.take(invoice["invoice_id"])) == "wrong-desk"


async def test_who_may_not_record_payments_sees_no_desk(desk: Desk) -> None:
    doctor = desk.till.billing.headers(desk.till.billing.principal("doctor"))
    assert (await desk.till.get("/v1/payments/desks", doctor)).status_code == 403
    elsewhere = desk.till.biller(network=False, centre_ids=frozenset({uuid7()}))
    assert (await desk.till.get("/v1/payments/desks", elsewhere)).json() == []
    path = f"/v1/payments/desks/{desk.desk_id}/shifts"
    assert (await desk.till.post(path, {"counted_minor": 0}, elsewhere)).status_code == 403
