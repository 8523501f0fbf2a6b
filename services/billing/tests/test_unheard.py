"""Payments whose notification got lost: the provider is asked, and the money counts once."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from clinic_billing import unheard
from clinic_billing.tables import unheard_payment

from .conftest import Provider
from .test_receipts import assert_one_receipt_per_movement, fiscalise


async def pay_silently(provider: Provider, payment: dict[str, Any], **options: Any) -> None:
    """Let the customer pay, and lose every notification of it."""
    await provider.pay(payment, deliveries=0, **options)


async def ask(provider: Provider) -> int:
    return await unheard.ask_about_due(provider.till.billing.runtime)


def time_passes(provider: Provider, minutes: float) -> None:
    provider.till.billing.clock.advance(minutes=minutes)


async def status_of(provider: Provider, payment: dict[str, Any]) -> str:
    return str((await provider.till.read_payment(payment["payment_id"]))["status"])


@pytest.mark.parametrize("vendor", ["stripe", "yookassa", "razorpay"])
async def test_a_payment_whose_notification_is_lost_is_paid_once_and_has_one_receipt(
    provider: Provider, vendor: str
) -> None:
    payment = await provider.started(provider=vendor)
    await pay_silently(provider, payment)
    assert await ask(provider) == 0
    assert await status_of(provider, payment) == "pending"
    time_passes(provider, minutes=2)
    assert await ask(provider) == 1
    assert await status_of(provider, payment) == "succeeded"
    time_passes(provider, minutes=60)
    assert await ask(provider) == 0
    await fiscalise(provider.till)
    await assert_one_receipt_per_movement(provider, movements=1)
    assert len(await provider.till.billing.events("billing.payment-received.v1")) == 1
    await provider.till.assert_books_are_right()


async def test_a_notification_that_comes_after_all_changes_nothing(provider: Provider) -> None:
    payment = await provider.started()
    await pay_silently(provider, payment)
    time_passes(provider, minutes=2)
    await ask(provider)
    till = provider.till
    intent = till.intent(payment, id=payment["provider_reference"])
    await till.notify("payment_intent.succeeded", intent)
    await till.process()
    assert (await till.dispositions())["superseded"] == 1
    await fiscalise(till)
    await assert_one_receipt_per_movement(provider, movements=1)


async def test_two_who_ask_at_once_book_the_money_once(provider: Provider) -> None:
    payments = [await provider.started() for _ in range(3)]
    for payment in payments:
        await pay_silently(provider, payment)
    time_passes(provider, minutes=2)
    asked = await asyncio.gather(*(ask(provider) for _ in range(3)))
    assert sum(asked) == len(payments)
    await fiscalise(provider.till)
    await assert_one_receipt_per_movement(provider, movements=len(payments))


async def test_who_never_pays_is_asked_about_ever_less_often_and_then_no_more(provider: Provider) -> None:
    await provider.started()
    waited, asked_at = 0, []
    while waited < 4 * 24 * 60:
        if await ask(provider):
            asked_at.append(waited)
        time_passes(provider, minutes=2)
        waited += 2
    pauses = [later - earlier for earlier, later in pairwise(asked_at)]
    assert len(asked_at) == unheard.MOST_READINGS
    assert asked_at[0] == 2
    assert pauses == sorted(pauses)
    assert asked_at[-1] > 24 * 60


async def test_a_provider_that_is_away_is_asked_again(provider: Provider) -> None:
    payment = await provider.started()
    await pay_silently(provider, payment)
    time_passes(provider, minutes=2)
    await provider.fail_next(status=503)
    assert await ask(provider) == 1
    [row] = await provider.till.rows(unheard_payment)
    assert (row["readings"], row["last_error"]) == (1, "ProviderUnavailableError")
    assert await ask(provider) == 0
    time_passes(provider, minutes=4)
    await ask(provider)
    assert await status_of(provider, payment) == "succeeded"


async def test_a_payment_that_was_declined_says_so_without_a_notification(provider: Provider) -> None:
    payment = await provider.started(provider="yookassa")
    await pay_silently(provider, payment, outcome="declined")
    time_passes(provider, minutes=2)
    await ask(provider)
    assert await status_of(provider, payment) in {"failed", "cancelled"}
    await provider.till.assert_books_are_right()
