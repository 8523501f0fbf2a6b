"""Stripe's notifications: who is believed, what takes effect, and what becomes of the rest."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from clinic_billing import tables

from .conftest import PRICE, WEBHOOK, Till

CORPUS = os.environ.get("CLINIC_CORPUS")


async def test_a_payment_is_received_once_published_and_booked(till: Till) -> None:
    invoice = await till.invoice()
    payment = await till.start_payment(invoice["invoice_id"])
    intent = till.intent(payment)
    await till.notify("payment_intent.succeeded", intent)
    await till.process()
    paid = await till.read_invoice(invoice["invoice_id"])
    assert (paid["status"], paid["outstanding_minor"]) == ("paid", 0)
    [event] = await till.billing.events("billing.payment-received.v1")
    assert event.data["provider_reference"] == intent["id"]
    assert event.data["paid_in_full"] is True
    assert event.partition_key == till.patient_id
    assert await till.dispositions() == {"answered": 1, "applied": 1}
    await till.assert_books_are_right()


async def test_the_same_bytes_five_times_at_once_are_one_payment(till: Till) -> None:
    payment = await till.start_payment((await till.invoice())["invoice_id"])
    event = till.event("payment_intent.succeeded", till.intent(payment))
    answers = await asyncio.gather(*(till.send(event) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    await till.process()
    assert len(await till.billing.events("billing.payment-received.v1")) == 1
    assert await till.dispositions() == {"answered": 5, "applied": 1, "duplicate": 4}
    await till.assert_books_are_right()


async def test_the_same_event_in_other_bytes_five_times_at_once_is_one_payment(till: Till) -> None:
    payment = await till.start_payment((await till.invoice())["invoice_id"])
    event = till.event("payment_intent.succeeded", till.intent(payment))
    await asyncio.gather(*(till.send(event | {"pending_webhooks": n}) for n in range(5)))
    await till.process()
    assert len(await till.billing.events("billing.payment-received.v1")) == 1
    assert await till.dispositions() == {"answered": 5, "applied": 1, "duplicate": 4}
    await till.assert_books_are_right()


async def test_two_events_of_one_success_are_one_payment(till: Till) -> None:
    payment = await till.start_payment((await till.invoice())["invoice_id"])
    intent = till.intent(payment)
    await till.notify("payment_intent.succeeded", intent)
    await till.notify("payment_intent.succeeded", intent)
    await till.process()
    assert len(await till.billing.events("billing.payment-received.v1")) == 1
    assert await till.dispositions() == {"answered": 2, "applied": 1, "superseded": 1}


async def test_success_before_creation_and_after_a_late_failure_is_harmless(till: Till) -> None:
    payment = await till.start_payment((await till.invoice())["invoice_id"])
    intent = till.intent(payment)
    declined = intent | {"amount_received": 0, "last_payment_error": {"code": "card_declined"}}
    await till.notify("payment_intent.succeeded", intent)
    await till.notify("payment_intent.payment_failed", declined)
    await till.notify("payment_intent.created", intent | {"amount_received": 0})
    await till.process()
    assert (await till.read_payment(payment["payment_id"]))["status"] == "succeeded"
    assert await till.dispositions() == {"answered": 3, "applied": 1, "superseded": 1, "rejected": 1}


async def test_a_declined_card_leaves_the_payment_open_for_another(till: Till) -> None:
    payment = await till.start_payment((await till.invoice())["invoice_id"])
    intent = till.intent(payment)
    await till.notify(
        "payment_intent.payment_failed",
        intent | {"amount_received": 0, "last_payment_error": {"code": "card_declined"}},
    )
    await till.process()
    open_still = await till.read_payment(payment["payment_id"])
    assert (open_still["status"], open_still["failure_code"]) == ("pending", "card_declined")
    await till.notify("payment_intent.succeeded", intent)
    await till.process()
    assert (await till.read_payment(payment["payment_id"]))["status"] == "succeeded"


@pytest.mark.parametrize(
    "changes",
    [{"amount_received": PRICE - 1}, {"amount_received": PRICE + 1}, {"currency": "usd"}],
    ids=["less", "more", "another currency"],
)
async def test_another_amount_or_currency_is_parked_and_changes_nothing(
    till: Till, changes: dict[str, Any]
) -> None:
    invoice = await till.invoice()
    payment = await till.start_payment(invoice["invoice_id"])
    await till.notify("payment_intent.succeeded", till.intent(payment, **changes))
    await till.process()
    assert (await till.read_invoice(invoice["invoice_id"]))["status"] == "issued"
    assert await till.dispositions() == {"answered": 1, "parked": 1}
    [parked] = (await till.get("/v1/payments/notifications", disposition="parked")).json()["items"]
    assert "payment-mismatch" in parked["error"]


async def test_money_nobody_asked_for_is_parked_until_a_person_decides(till: Till) -> None:
    await till.notify("payment_intent.succeeded", till.intent(metadata={"payment_id": "not-ours"}))
    await till.process()
    [parked] = (await till.get("/v1/payments/notifications", disposition="parked")).json()["items"]
    path = f"/v1/payments/notifications/{parked['notification_id']}"
    assert (await till.post(f"{path}/redrive")).status_code == 202
    assert await till.dispositions() == {"answered": 1, "in_flight": 1}
    await till.process()
    assert await till.dispositions() == {"answered": 1, "parked": 1}
    assert (await till.post(f"{path}/discard", {"reason": "of another shop"})).status_code == 204
    assert await till.dispositions() == {"answered": 1, "discarded": 1}
    assert (await till.post(f"{path}/discard", {"reason": "of another shop"})).status_code == 404
    [kept] = (await till.get("/v1/payments/notifications")).json()["items"]
    assert (kept["disposition"], kept["reason"]) == ("discarded", "of another shop")


async def test_a_parked_notification_takes_effect_once_it_is_known_what_it_belongs_to(till: Till) -> None:
    invoice = await till.invoice()
    payment = await till.start_payment(invoice["invoice_id"])
    intent = till.intent(payment, metadata={})
    await till.notify("payment_intent.succeeded", intent)
    await till.process()
    async with till.billing.runtime.database.transaction() as tx:
        mine = tables.payment.update().where(tables.payment.c.payment_id == payment["payment_id"])
        await tx.execute(mine.values(provider_reference=intent["id"]))
    [parked] = (await till.get("/v1/payments/notifications", disposition="parked")).json()["items"]
    await till.post(f"/v1/payments/notifications/{parked['notification_id']}/redrive")
    await till.process()
    assert (await till.read_invoice(invoice["invoice_id"]))["status"] == "paid"
    assert await till.dispositions() == {"answered": 1, "applied": 1}


async def test_an_unknown_kind_of_event_is_kept_and_has_no_effect(till: Till) -> None:
    await till.notify("customer.created", {"id": "cus_0", "object": "customer"})
    await till.process()
    [kept] = (await till.get("/v1/payments/notifications", disposition="rejected")).json()["items"]
    assert (kept["event_type"], kept["reason"]) == ("customer.created", "event-type-without-effect")


@pytest.mark.parametrize(
    "document", [{"object": "event"}, {"id": "evt_1", "type": "payment_intent.succeeded", "data": {}}, []]
)
async def test_what_can_t_be_read_is_parked(till: Till, document: Any) -> None:
    assert (await till.send(document)).status_code == 200
    await till.process()
    assert await till.dispositions() == {"answered": 1, "parked": 1}


async def test_an_event_whose_object_is_malformed_is_parked(till: Till) -> None:
    await till.notify("payment_intent.succeeded", {"object": "payment_intent", "amount_received": "much"})
    await till.process()
    assert await till.dispositions() == {"answered": 1, "parked": 1}


# -- signatures


async def test_another_secret_is_refused(till: Till) -> None:
    answer = await till.send(till.event("payment_intent.succeeded", till.intent()), secret="whsec_other")
    assert answer.status_code == 400
    assert answer.json()["type"].endswith("/signature-invalid")
    assert await till.dispositions() == {}


@pytest.mark.parametrize(("age_seconds", "status"), [(299, 200), (301, 400), (-299, 200), (-301, 400)])
async def test_a_signature_is_good_for_five_minutes(till: Till, age_seconds: int, status: int) -> None:
    event = till.event("customer.created", {"id": "cus_0"})
    assert (await till.send(event, age_seconds=age_seconds)).status_code == status


async def test_one_changed_byte_is_refused(till: Till) -> None:
    body = json.dumps(till.event("payment_intent.succeeded", till.intent())).encode()
    headers = till.signed(body)
    answer = await till.billing.http.post(WEBHOOK, content=body.replace(b"rub", b"usd"), headers=headers)
    assert answer.status_code == 400


async def test_the_signature_is_over_the_raw_bytes_and_not_over_the_json(till: Till) -> None:
    body = b'{ "id":"evt_1",\n\t"type":"customer.created", "data":{"object":{"amount":1.50}} }\n'
    answer = await till.billing.http.post(WEBHOOK, content=body, headers=till.signed(body))
    assert answer.status_code == 200


async def test_one_good_signature_among_several_is_enough(till: Till) -> None:
    body = json.dumps(till.event("customer.created", {"id": "cus_0"})).encode()
    good = till.signed(body)["stripe-signature"]
    timestamp, _, signature = good.partition(",")
    rolled = f"{timestamp},v1={'0' * 64},{signature},v0={'1' * 64}"
    headers = {"stripe-signature": rolled, "content-type": "application/json"}
    assert (await till.billing.http.post(WEBHOOK, content=body, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "header",
    ["", "t=", "v1=00", "t=1,t=2,v1=00", "t=-1,v1=00", "t=٣,v1=00", f"t={'9' * 400},v1=00", "t=1772431200"],
)
async def test_a_malformed_signature_header_is_refused(till: Till, header: str) -> None:
    headers = {b"stripe-signature": header.encode(), b"content-type": b"application/json"}
    answer = await till.billing.http.post(WEBHOOK, content=b"{}", headers=headers)
    assert answer.status_code == 400


async def test_without_a_signature_nothing_is_taken_in(till: Till) -> None:
    answer = await till.billing.http.post(
        WEBHOOK, content=b"{}", headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400


# -- real notifications


@pytest.mark.skipif(CORPUS is None, reason="CLINIC_CORPUS is not set")
async def test_every_stripe_file_of_the_corpus_is_answered_and_accounted_for(till: Till) -> None:
    files = sorted((Path(CORPUS or "") / "payments" / "stripe").glob("*.json"))
    assert files
    for number, file in enumerate(files):
        body = file.read_bytes()
        if number:
            # The examples share one event id; what differs in reality must differ here.
            body = body.replace(b'"evt_0', f'"evt_{number}'.encode(), 1)
        answer = await till.billing.http.post(WEBHOOK, content=body, headers=till.signed(body))
        assert answer.status_code == 200, (file.name, answer.text)
    await till.process()
    counted = await till.dispositions()
    assert counted["answered"] == len(files)
    kinds = {
        n["event_type"] or "": n["disposition"]
        for n in (await till.get("/v1/payments/notifications")).json()["items"]
    }
    assert kinds.pop("") == "parked"
    assert set(kinds.values()) == {"rejected"}
    assert await till.billing.events("billing.payment-received.v1") == []
