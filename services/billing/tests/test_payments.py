"""Paying and refunding through the provider: intent, call, result, and the notifications of it."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from clinic_billing import tables
from clinic_shared.ids import uuid7

from .conftest import PRICE, Provider, Till


async def refund(till: Till, payment: dict[str, Any], **body: Any) -> dict[str, Any]:
    answer = await till.post(
        f"/v1/payments/{payment['payment_id']}/refunds", {"reason_code": "service-not-rendered"} | body
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


async def refunds_of(till: Till, payment: dict[str, Any]) -> list[dict[str, Any]]:
    return (await till.get(f"/v1/payments/{payment['payment_id']}/refunds")).json()


# -- starting


async def test_a_payment_asks_for_what_is_left_and_is_not_yet_known_to_the_provider(till: Till) -> None:
    payment = await till.start_payment((await till.invoice())["invoice_id"])
    assert (payment["status"], payment["amount_minor"]) == ("pending", PRICE)
    assert payment["provider_reference"] is None


async def test_ten_starts_at_once_are_one_payment(till: Till) -> None:
    invoice = await till.invoice()
    started = await asyncio.gather(*(till.start_payment(invoice["invoice_id"]) for _ in range(10)))
    assert len({payment["payment_id"] for payment in started}) == 1
    assert len(await till.rows(tables.provider_call)) == 1


async def test_the_database_refuses_a_second_pending_payment_whatever_the_code_does(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sees_nothing(*_: object) -> None:
        return None

    invoice = await till.invoice()
    await till.start_payment(invoice["invoice_id"])
    monkeypatch.setattr("clinic_billing.payment_store.find_pending_payment", sees_nothing)
    answer = await till.post(f"/v1/invoices/{invoice['invoice_id']}/payments", {}, till.patient())
    assert answer.status_code == 409
    assert len(await till.rows(tables.payment)) == 1


async def test_a_pending_payment_of_another_amount_is_pointed_out(till: Till) -> None:
    invoice = await till.invoice()
    first = await till.start_payment(invoice["invoice_id"], amount_minor=100)
    answer = await till.post(f"/v1/invoices/{invoice['invoice_id']}/payments", {}, till.patient())
    assert answer.status_code == 409
    assert answer.json()["payment_id"] == first["payment_id"]


async def test_paying_more_than_is_left_or_what_is_paid_is_refused(till: Till) -> None:
    payment, _ = await till.paid()
    path = f"/v1/invoices/{payment['invoice_id']}/payments"
    assert (await till.post(path, {}, till.patient())).json()["type"].endswith("/nothing-to-pay")
    invoice = await till.invoice()
    path = f"/v1/invoices/{invoice['invoice_id']}/payments"
    answer = await till.post(path, {"amount_minor": PRICE + 1}, till.patient())
    assert (answer.status_code, answer.json()["outstanding_minor"]) == (422, PRICE)


async def test_an_invoice_may_be_paid_in_parts(till: Till) -> None:
    invoice = await till.invoice()
    for amount, status in ((1000, "partly-paid"), (PRICE - 1000, "paid")):
        payment = await till.start_payment(invoice["invoice_id"], amount_minor=amount)
        await till.notify("payment_intent.succeeded", till.intent(payment))
        await till.process()
        assert (await till.read_invoice(invoice["invoice_id"]))["status"] == status
    first, last = await till.billing.events("billing.payment-received.v1")
    assert (first.data["paid_in_full"], last.data["paid_in_full"]) == (False, True)
    await till.assert_books_are_right()


# -- the provider


async def test_the_provider_is_asked_once_and_its_reference_is_kept(provider: Provider) -> None:
    payment = await provider.started()
    assert payment["provider_reference"].startswith("pi_")
    assert payment["client_secret"].startswith(payment["provider_reference"])
    assert await provider.call() == 0


async def test_a_payment_told_twice_and_in_the_wrong_order_is_received_once(provider: Provider) -> None:
    payment = await provider.started()
    await provider.pay(payment, deliveries=2, reorder=True)
    paid = await provider.till.read_payment(payment["payment_id"])
    assert (paid["status"], paid["client_secret"]) == ("succeeded", None)
    assert len(await provider.till.billing.events("billing.payment-received.v1")) == 1
    counted = await provider.till.dispositions()
    assert counted["applied"] == 1
    assert counted["duplicate"] >= 2
    await provider.till.assert_books_are_right()


async def test_a_provider_that_is_down_is_asked_again(provider: Provider) -> None:
    await provider.fail_next(status=503)
    payment = await provider.started()
    assert payment["provider_reference"] is None
    await provider.make_due()
    assert await provider.call() == 1
    assert (await provider.till.read_payment(payment["payment_id"]))["provider_reference"] is not None


async def test_a_call_whose_answer_was_lost_is_repeated_without_a_second_intent(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(*_: object, **__: object) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as patched:
        patched.setattr("clinic_billing.settlement.know", dies)
        with pytest.raises(ConnectionResetError):
            await provider.started()
    await provider.make_due()
    await provider.call()
    created = [
        event["data"]["object"]["id"]
        for event in (await provider.http.get("/_control/stripe/events")).json()["items"]
        if event["type"] == "payment_intent.created"
    ]
    assert len(created) == 1
    [payment] = await provider.till.rows(tables.payment)
    assert payment["provider_reference"] == created[0]


async def test_money_told_before_the_call_s_answer_is_kept_is_received(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our process died between the provider's answer and its result row; the webhook comes first."""

    async def dies(*_: object, **__: object) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as patched:
        patched.setattr("clinic_billing.settlement.know", dies)
        with pytest.raises(ConnectionResetError):
            await provider.started()
    [reference] = await provider.made_at("stripe")
    await provider.pay({"provider": "stripe", "provider_reference": reference})
    [paid] = await provider.till.rows(tables.payment)
    assert paid["status"] == "succeeded"
    await provider.make_due()
    await provider.call()
    await provider.till.assert_books_are_right()


async def test_what_the_provider_refuses_for_good_has_failed(provider: Provider) -> None:
    await provider.fail_next(status=402, code="amount_too_small")
    payment = await provider.started()
    assert (payment["status"], payment["failure_code"]) == ("failed", "amount_too_small")
    again = await provider.till.start_payment(payment["invoice_id"])
    assert again["payment_id"] != payment["payment_id"]


async def test_a_declined_card_and_then_a_good_one(provider: Provider) -> None:
    payment = await provider.started()
    await provider.pay(payment, outcome="card_declined")
    declined = await provider.till.read_payment(payment["payment_id"])
    assert (declined["status"], declined["failure_code"]) == ("pending", "card_declined")
    await provider.pay(payment)
    assert (await provider.till.read_payment(payment["payment_id"]))["status"] == "succeeded"


async def test_a_pending_payment_can_be_cancelled_and_the_invoice_paid_anew(provider: Provider) -> None:
    till, payment = provider.till, await provider.started()
    path = f"/v1/payments/{payment['payment_id']}/cancel"
    assert (await till.post(path, {}, till.patient())).json()["status"] == "pending"
    await provider.call()
    await provider.quiet()
    assert (await till.read_payment(payment["payment_id"]))["status"] == "cancelled"
    assert (await till.post(path, {}, till.patient())).json()["type"].endswith("/not-cancellable")
    assert (await till.start_payment(payment["invoice_id"]))["payment_id"] != payment["payment_id"]


async def test_two_workers_share_the_calls(provider: Provider) -> None:
    for _ in range(4):
        await provider.till.start_payment((await provider.till.invoice())["invoice_id"])
    made = await asyncio.gather(*(provider.call() for _ in range(4)))
    assert sum(made) == 4


async def test_a_call_that_is_older_than_its_idempotency_key_waits_for_a_person(provider: Provider) -> None:
    await provider.till.start_payment((await provider.till.invoice())["invoice_id"])
    provider.till.billing.clock.advance(hours=24)
    assert await provider.call() == 0
    [call] = await provider.till.rows(tables.provider_call)
    assert call["state"] == "unresolved"


# -- refunds


async def test_a_refund_gives_the_money_back_once(provider: Provider) -> None:
    till, payment = provider.till, await provider.started()
    await provider.pay(payment)
    asked = await refund(till, payment)
    assert (asked["status"], asked["amount_minor"]) == ("pending", PRICE)
    await provider.call()
    await provider.quiet()
    [done] = await refunds_of(till, payment)
    assert (done["status"], done["refund_id"]) == ("succeeded", asked["refund_id"])
    assert (await till.read_payment(payment["payment_id"]))["status"] == "refunded"
    assert (await till.read_invoice(payment["invoice_id"]))["outstanding_minor"] == PRICE
    [event] = await till.billing.events("billing.payment-refunded.v1")
    assert (event.data["refunded_minor"], event.data["reason_code"]) == (PRICE, "service-not-rendered")
    assert "parked" not in await till.dispositions()
    await till.assert_books_are_right()


async def test_a_payment_is_refunded_piece_by_piece_and_never_beyond(provider: Provider) -> None:
    till, payment = provider.till, await provider.started()
    await provider.pay(payment)
    await refund(till, payment, amount_minor=100_000)
    path = f"/v1/payments/{payment['payment_id']}/refunds"
    over = await till.post(path, {"amount_minor": 150_001, "reason_code": "mistake"})
    assert (over.status_code, over.json()["refundable_minor"]) == (422, 150_000)
    await refund(till, payment)
    assert (await till.post(path, {"reason_code": "mistake"})).json()["type"].endswith("/not-refundable")
    await provider.call()
    await provider.quiet()
    assert (await till.read_payment(payment["payment_id"]))["refunded_minor"] == PRICE
    await till.assert_books_are_right()


async def test_ten_refunds_of_everything_at_once_are_one(provider: Provider) -> None:
    till, payment = provider.till, await provider.started()
    await provider.pay(payment)
    path, body = f"/v1/payments/{payment['payment_id']}/refunds", {"reason_code": "mistake"}
    answers = await asyncio.gather(*(till.post(path, body) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9


async def test_a_refund_that_the_provider_refuses_can_be_asked_for_again(provider: Provider) -> None:
    till, payment = provider.till, await provider.started()
    await provider.pay(payment)
    await refund(till, payment)
    await provider.fail_next(status=400, code="charge_disputed")
    await provider.call()
    [failed] = await refunds_of(till, payment)
    assert (failed["status"], failed["failure_code"]) == ("failed", "charge_disputed")
    await refund(till, payment)
    await provider.call()
    await provider.quiet()
    assert (await till.read_payment(payment["payment_id"]))["status"] == "refunded"
    await till.assert_books_are_right()


async def test_events_tell_each_version_of_a_payment_however_many_refunds_are_asked_for(
    provider: Provider,
) -> None:
    till, payment = provider.till, await provider.started()
    await provider.pay(payment)
    await refund(till, payment, amount_minor=1_000)
    await provider.fail_next(status=400, code="charge_disputed")
    await provider.call()
    for _ in range(2):
        await refund(till, payment, amount_minor=1_000)
        await provider.call()
        await provider.quiet()
    [received] = await till.billing.events("billing.payment-received.v1")
    refunded = await till.billing.events("billing.payment-refunded.v1")
    assert [event.aggregate_version for event in refunded] == [
        received.aggregate_version + 1,
        received.aggregate_version + 2,
    ]
    assert (await till.read_payment(payment["payment_id"]))["version"] == refunded[-1].aggregate_version


async def test_a_refund_made_at_the_provider_is_booked_too(provider: Provider) -> None:
    till, payment = provider.till, await provider.started()
    await provider.pay(payment)
    form = {"payment_intent": payment["provider_reference"], "amount": "1000"}
    key = {"authorization": "Bearer sk_test_fictitious"}
    assert (await provider.http.post("/v1/refunds", data=form, headers=key)).status_code == 200
    await provider.quiet()
    [made] = await refunds_of(till, payment)
    assert (made["reason_code"], made["amount_minor"]) == ("made-at-provider", 1000)
    await till.assert_books_are_right()


async def test_a_refund_that_the_provider_doesn_t_show_yet_is_looked_for_again(till: Till) -> None:
    payment, reference = await till.paid()
    charge = {"id": "ch_1", "amount_refunded": 1000, "payment_intent": reference}
    await till.notify("charge.refunded", charge)
    await till.process()
    assert (await till.dispositions())["in_flight"] == 1
    refunded = {"id": "re_1", "status": "succeeded", "amount": 1000, "currency": "rub"}
    await till.notify("refund.created", refunded | {"payment_intent": reference})
    await till.process()
    await till.make_calls_due()
    await till.process()
    assert await till.dispositions() == {"answered": 3, "applied": 2, "superseded": 1}
    assert (await till.read_payment(payment["payment_id"]))["refunded_minor"] == 1000


async def test_a_refund_told_by_two_events_counts_once(till: Till) -> None:
    payment, reference = await till.paid()
    refunded = {"id": "re_1", "status": "succeeded", "amount": 1000, "currency": "rub"}
    charge = {"id": "ch_1", "amount_refunded": 1000, "payment_intent": reference}
    await till.notify("charge.refunded", charge)
    await till.notify("refund.created", refunded | {"payment_intent": reference})
    await till.process()
    assert await till.dispositions() == {"answered": 3, "applied": 2, "superseded": 1}
    assert (await till.read_payment(payment["payment_id"]))["refunded_minor"] == 1000
    await till.assert_books_are_right()


async def test_a_refund_told_before_its_payment_takes_effect_with_it(till: Till) -> None:
    payment = await till.start_payment((await till.invoice())["invoice_id"])
    intent = till.intent(payment)
    till.stripe.learn("payment_intent.succeeded", intent)
    refunded = {"id": "re_1", "status": "succeeded", "amount": PRICE, "currency": "rub"}
    await till.notify("refund.created", refunded | {"payment_intent": intent["id"]})
    await till.process()
    await till.notify("payment_intent.succeeded", intent)
    await till.process()
    assert await till.dispositions() == {"answered": 2, "applied": 1, "superseded": 1}
    assert (await till.read_payment(payment["payment_id"]))["status"] == "refunded"
    await till.assert_books_are_right()


async def test_a_refund_that_takes_its_time_and_fails_is_told_by_notifications(till: Till) -> None:
    payment, reference = await till.paid()
    asked = await refund(till, payment, amount_minor=1000)
    told = {
        "id": "re_1",
        "status": "pending",
        "amount": 1000,
        "currency": "rub",
        "payment_intent": reference,
        "metadata": {"refund_id": asked["refund_id"]},
    }
    await till.notify("refund.created", told)
    await till.notify(
        "refund.failed", told | {"status": "failed", "failure_reason": "expired_or_canceled_card"}
    )
    await till.process()
    [failed] = await refunds_of(till, payment)
    assert (failed["status"], failed["failure_code"]) == ("failed", "expired_or_canceled_card")
    assert (await refund(till, payment))["amount_minor"] == PRICE


async def test_a_refund_that_succeeded_and_then_failed_waits_for_a_person(till: Till) -> None:
    _, reference = await till.paid()
    told = {"id": "re_1", "status": "succeeded", "amount": 9, "currency": "rub", "payment_intent": reference}
    await till.notify("refund.created", told)
    await till.process()
    await till.notify("refund.failed", told | {"status": "failed"})
    await till.process()
    assert await till.dispositions() == {"answered": 3, "applied": 2, "parked": 1}


async def test_a_dispute_waits_for_a_person(till: Till) -> None:
    await till.notify("charge.dispute.created", {"id": "dp_1", "object": "dispute"})
    await till.process()
    assert await till.dispositions() == {"answered": 1, "parked": 1}


async def test_the_same_key_starts_one_payment_and_answers_the_same(till: Till) -> None:
    invoice = await till.invoice()
    path, headers = f"/v1/invoices/{invoice['invoice_id']}/payments", till.patient()
    first, again = [await till.post(path, {}, headers) for _ in range(2)]
    assert first.json() == again.json()
    other = await till.post(path, {"amount_minor": 1}, headers)
    assert other.status_code == 422
    del headers["Idempotency-Key"]
    assert (await till.post(path, {}, headers)).status_code == 400


async def test_a_payment_of_nobody_is_not_found(till: Till) -> None:
    for path in (f"/v1/payments/{uuid7()}", f"/v1/invoices/{uuid7()}", f"/v1/payments/{uuid7()}/refunds"):
        assert (await till.get(path)).status_code == 404


def test_keys_are_given_up_before_the_provider_forgets_them() -> None:
    from clinic_billing.provider_calls import KEY_VALID, LEASE

    assert timedelta(hours=24) > KEY_VALID + LEASE
