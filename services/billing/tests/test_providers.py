"""The three providers, each with a stand-in that doubles, reorders, lags, lies and dies."""

import json
from typing import Any

import pytest
from clinic_billing import rereading, tables

from .conftest import PRICE, Provider

PROVIDERS = ("stripe", "yookassa", "razorpay")
each = pytest.mark.parametrize("name", PROVIDERS)


async def refund_all(provider: Provider, payment: dict[str, Any]) -> None:
    path = f"/v1/payments/{payment['payment_id']}/refunds"
    answer = await provider.till.post(path, {"reason_code": "service-not-rendered"})
    assert answer.status_code == 201, answer.text


@each
async def test_a_payment_told_three_times_is_received_once_and_refunded_once(
    provider: Provider, name: str
) -> None:
    till, payment = provider.till, await provider.started(provider=name)
    assert payment["provider"] == name
    await provider.pay(payment, deliveries=3)
    paid = await till.read_payment(payment["payment_id"])
    assert (paid["status"], paid["client_secret"], paid["confirmation_url"]) == ("succeeded", None, None)
    await refund_all(provider, payment)
    await provider.call()
    await provider.quiet()
    assert (await till.read_payment(payment["payment_id"]))["status"] == "refunded"
    assert len(await till.billing.events("billing.payment-received.v1")) == 1
    assert len(await till.billing.events("billing.payment-refunded.v1")) == 1
    assert "parked" not in await till.dispositions(name)
    await till.assert_books_are_right()


@each
async def test_a_notification_that_lies_moves_nothing_and_waits_for_a_person(
    provider: Provider, name: str
) -> None:
    till, payment = provider.till, await provider.started(provider=name)
    await provider.pay(payment, lie=True)
    for _ in range(rereading.MOST_READINGS):
        await provider.make_due()
        await till.process()
    assert (await till.read_payment(payment["payment_id"]))["status"] == "pending"
    assert (await till.dispositions(name))["parked"] == 1
    [parked] = (await till.get("/v1/payments/notifications", disposition="parked")).json()["items"]
    assert "notification-contradicted" in parked["error"]
    await provider.pay(payment)
    await till.post(f"/v1/payments/notifications/{parked['notification_id']}/redrive")
    await till.process()
    assert "parked" not in await till.dispositions(name)
    assert (await till.read_payment(payment["payment_id"]))["status"] == "succeeded"


@each
async def test_a_provider_that_dies_after_it_has_begun_is_asked_again_without_a_second_payment(
    provider: Provider, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(*_: object, **__: object) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as patched:
        patched.setattr("clinic_billing.settlement.know", dies)
        with pytest.raises(ConnectionResetError):
            await provider.started(provider=name)
    await provider.fail_next(vendor=name, status=503)
    await provider.make_due()
    await provider.call()
    await provider.make_due()
    await provider.call()
    [payment] = await provider.till.rows(tables.payment)
    made = await provider.made_at(name)
    assert made == [payment["provider_reference"]]


@each
async def test_a_provider_that_is_away_when_a_payment_is_to_be_read_is_asked_again(
    provider: Provider, name: str
) -> None:
    till, payment = provider.till, await provider.started(provider=name)
    # As many as there may be tries, however slow the machine is.
    await provider.fail_next(vendor=name, status=502, times=100)
    await provider.pay(payment)
    assert (await till.dispositions(name))["in_flight"] == 1
    assert (await provider.http.delete("/_control/faults")).status_code == 204
    await provider.make_due()
    await till.process()
    assert (await till.read_payment(payment["payment_id"]))["status"] == "succeeded"


@each
async def test_money_of_ours_that_the_provider_has_forgotten_waits_for_a_person(
    provider: Provider, name: str
) -> None:
    till, payment = provider.till, await provider.started(provider=name)
    await provider.fail_next(vendor=name, status=502, times=100)
    await provider.pay(payment)
    assert (await provider.http.post("/_control/reset")).status_code == 204
    for _ in range(rereading.MOST_READINGS):
        await provider.make_due()
        await till.process()
    assert (await till.dispositions(name))["parked"] == 1
    [parked] = (await till.get("/v1/payments/notifications", disposition="parked")).json()["items"]
    assert parked["error"] == rereading.NOT_AT_PROVIDER


@pytest.mark.parametrize("name", ["stripe", "razorpay"])
async def test_a_notification_with_another_signature_is_refused(provider: Provider, name: str) -> None:
    headers = {
        "content-type": "application/json",
        "x-razorpay-signature": "0" * 64,
        "stripe-signature": "t=1,v1=00",
    }
    path = f"/v1/webhooks/payments/{name}"
    answer = await provider.till.billing.http.post(path, content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (400, "signature-invalid")


async def test_what_anybody_may_send_in_yookassa_s_name_has_no_effect(provider: Provider) -> None:
    till = provider.till
    forged = {
        "type": "notification",
        "event": "payment.succeeded",
        "object": {
            "id": "nobodys-0001",
            "status": "succeeded",
            "amount": {"value": "1.00", "currency": "RUB"},
        },
    }
    path = "/v1/webhooks/payments/yookassa"
    headers = {"content-type": "application/json"}
    answer = await till.billing.http.post(path, content=json.dumps(forged), headers=headers)
    assert answer.status_code == 200
    await till.process()
    assert await till.dispositions("yookassa") == {"answered": 1, "rejected": 1}
    forged["object"] = {"id": "../../v3/refunds"}
    answer = await till.billing.http.post(path, content=json.dumps(forged), headers=headers)
    assert answer.status_code == 400


async def test_a_declined_card_at_yookassa_ends_the_payment_and_another_may_begin(provider: Provider) -> None:
    till, payment = provider.till, await provider.started(provider="yookassa")
    assert payment["confirmation_url"].startswith("https://")
    await provider.pay(payment, outcome="declined")
    failed = await till.read_payment(payment["payment_id"])
    assert (failed["status"], failed["failure_code"]) == ("failed", "insufficient_funds")
    again = await till.start_payment(payment["invoice_id"], provider="razorpay")
    assert (again["amount_minor"], again["provider"]) == (PRICE, "razorpay")


async def test_a_provider_without_an_account_is_not_offered(till: Any) -> None:
    invoice = await till.invoice()
    path = f"/v1/invoices/{invoice['invoice_id']}/payments"
    answer = await till.post(path, {"provider": "razorpay"}, till.patient())
    assert (answer.status_code, answer.json()["providers"]) == (422, ["stripe"])
    headers = {"content-type": "application/json"}
    answer = await till.billing.http.post("/v1/webhooks/payments/razorpay", content=b"{}", headers=headers)
    assert answer.status_code == 404
