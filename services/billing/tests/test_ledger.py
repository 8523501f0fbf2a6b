"""The books: what the database refuses, and that they are right after everything at once."""

import asyncio
import random
from collections.abc import Awaitable
from typing import Any

import pytest
from clinic_billing import ledger, settlement, tables
from clinic_billing.accounts import Entry
from clinic_billing.settlement import ToldRefund
from clinic_shared.ids import uuid7
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from .conftest import PRICE, Till


async def book(till: Till, *entries: Entry, source_id: Any = None) -> None:
    async with till.billing.runtime.database.transaction() as tx:
        await ledger.book(
            tx,
            "payment-received",
            entries,
            source_id=source_id or uuid7(),
            legal_entity_id=uuid7(),
            currency="RUB",
        )


async def test_a_movement_that_doesn_t_sum_to_zero_can_t_be_committed(till: Till) -> None:
    with pytest.raises(IntegrityError, match="must sum to zero"):
        await book(till, Entry(account="a", amount_minor=5), Entry(account="b", amount_minor=-4))
    assert await till.rows(tables.ledger_movement) == []


async def test_one_source_is_booked_once(till: Till) -> None:
    source_id = uuid7()
    both = (Entry(account="a", amount_minor=5), Entry(account="b", amount_minor=-5))
    await book(till, *both, source_id=source_id)
    with pytest.raises(IntegrityError, match="ledger_movement_once"):
        await book(till, *both, source_id=source_id)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_entry SET amount_minor = 1",
        "DELETE FROM ledger_entry",
        "UPDATE ledger_movement SET booked_at = now()",
        "DELETE FROM ledger_movement",
        "TRUNCATE ledger_entry",
    ],
)
async def test_what_is_booked_is_not_changed(till: Till, statement: str) -> None:
    await till.invoice()
    with pytest.raises(IntegrityError, match="corrected by further movements"):
        async with till.billing.runtime.database.transaction() as tx:
            await tx.execute(text(statement))


async def test_the_accounts_tell_what_is_owed_earned_and_held(till: Till) -> None:
    payment, reference = await till.paid()
    refund = {"id": "re_1", "status": "succeeded", "amount": 1000, "currency": "rub"}
    await till.notify("refund.created", refund | {"payment_intent": reference})
    await till.process()
    async with till.billing.runtime.database.transaction() as tx:
        assert await ledger.balance_of(tx, f"receivable:{payment['invoice_id']}") == 1000
        assert await ledger.balance_of(tx, f"revenue:{till.legal_entity_id}") == -PRICE
        assert await ledger.balance_of(tx, "cash:stripe") == PRICE - 1000
    await till.assert_books_are_right()


async def test_the_books_are_right_after_payments_and_refunds_at_once(till: Till) -> None:
    """Several payments, each told several times, refunded piecemeal from two sides, all concurrently."""
    paid = [await till.paid() for _ in range(3)]
    database = till.billing.runtime.database

    async def refund_at_provider(payment: dict[str, Any], reference: str, amount: int) -> None:
        told = ToldRefund(
            reference=reference,
            amount_minor=amount,
            currency="RUB",
            refunded_at=till.billing.clock.now(),
            refund_id=None,
        )
        async with database.transaction() as tx:
            await settlement.give_back(tx, payment["payment_id"], told)

    work: list[Awaitable[object]] = [
        refund_at_provider(payment, f"re_{number}_{payment['payment_id']}", 100 + number)
        for payment, _ in paid
        for number in (*range(5), *range(5))
    ]
    work += [till.complete_visit() for _ in range(5)]
    random.shuffle(work)
    await asyncio.gather(*work, *(till.paid() for _ in range(2)))
    for payment, _ in paid:
        now = await till.read_payment(payment["payment_id"])
        assert (now["refunded_minor"], now["status"]) == (sum(range(100, 105)), "partly-refunded")
    assert len(await till.billing.events("billing.payment-refunded.v1")) == 15
    await till.assert_books_are_right()


async def test_operators_see_that_the_books_and_the_notifications_add_up(till: Till) -> None:
    await till.paid()
    await till.notify("payment_intent.succeeded", till.intent())
    operator = till.billing.headers(till.billing.principal("system-administrator"))
    shown = (await till.get("/v1/ops/ledger", operator)).json()
    assert shown["money_sum_minor"] == 0
    [line] = shown["interfaces"]
    counts = {name: count for name, count in line.items() if count}
    assert counts == {
        "interface": "stripe",
        "answered": 2,
        "applied": 1,
        "in_flight": 1,
        "balanced": True,
    }
