"""Notifications while the database, the broker, or both are away: kept and answered, or refused for now."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from clinic_billing import tables
from clinic_billing.app import intake_worker, service
from clinic_billing.settings import BillingSettings
from clinic_shared.auth import TokenSigner
from clinic_shared.service import Service
from clinic_shared.testing import FixedClock, Servers, harness
from clinic_shared.topology import declare_all

from .conftest import Till, open_till

NOWHERE = "127.0.0.1:9"


@asynccontextmanager
async def running(
    signer: TokenSigner, clock: FixedClock, *, database_url: str, amqp_url: str
) -> AsyncIterator[Till]:
    async with harness(
        service, database_url=database_url, amqp_url=amqp_url, signer=signer, clock=clock
    ) as made:
        yield Till(made)


def event(till: Till, payment: dict[str, Any]) -> dict[str, Any]:
    return till.event("payment_intent.succeeded", till.intent(payment))


async def drain(till: Till) -> None:
    worker = intake_worker(till.billing.runtime)
    while await worker.drain_batch():
        continue
    await till.process()


async def test_with_the_broker_down_a_notification_is_kept_and_takes_effect(
    signer: TokenSigner, clock: FixedClock, database_of: Callable[[Service], str]
) -> None:
    async with running(
        signer, clock, database_url=database_of(service), amqp_url=f"amqp://guest:guest@{NOWHERE}/"
    ) as fresh:
        till = await open_till(fresh.billing)
        await till.stripe.stand_in(till.billing.runtime)
        payment = await till.start_payment((await till.invoice())["invoice_id"])
        assert (await till.send(event(till, payment))).status_code == 200
        await till.process()
        assert (await till.read_payment(payment["payment_id"]))["status"] == "succeeded"


async def test_with_the_database_down_a_notification_waits_on_the_queue_and_takes_effect_later(
    signer: TokenSigner, clock: FixedClock, database_of: Callable[[Service], str], vhost: Servers
) -> None:
    await declare_all(vhost.amqp_url, vhost.management_url, ())
    database_url = database_of(service)
    async with running(signer, clock, database_url=database_url, amqp_url=vhost.amqp_url) as fresh:
        till = await open_till(fresh.billing)
        payment = await till.start_payment((await till.invoice())["invoice_id"])
    told = event(till, payment)
    async with running(
        signer, clock, database_url=f"postgresql://nobody@{NOWHERE}/none", amqp_url=vhost.amqp_url
    ) as away:
        answers = [await away.send(told) for _ in range(3)]
        assert {answer.status_code for answer in answers} == {200}
    async with running(signer, clock, database_url=database_url, amqp_url=vhost.amqp_url) as back:
        await away.stripe.stand_in(back.billing.runtime)
        await drain(back)
        assert len(await back.billing.events("billing.payment-received.v1")) == 1
        assert await back.dispositions() == {"answered": 3, "applied": 1, "duplicate": 2}
        [kept] = (await back.get("/v1/payments/notifications")).json()["items"]
        assert kept["via"] == "queue"
        assert len(await back.rows(tables.notification)) == 1
        await back.assert_books_are_right()


async def test_with_both_down_the_provider_is_told_to_come_again(
    signer: TokenSigner, clock: FixedClock
) -> None:
    async with running(
        signer,
        clock,
        database_url=f"postgresql://nobody@{NOWHERE}/none",
        amqp_url=f"amqp://guest:guest@{NOWHERE}/",
    ) as away:
        answer = await away.send(away.event("payment_intent.succeeded", away.intent()))
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        forged = await away.send(away.event("payment_intent.succeeded", away.intent()), secret="whsec_other")
        assert forged.status_code == 400


@pytest.mark.parametrize("secrets", ["whsec_new,whsec_fictitious", "whsec_fictitious , whsec_old"])
async def test_while_a_secret_is_replaced_both_are_good(
    servers: Servers,
    signer: TokenSigner,
    clock: FixedClock,
    database_of: Callable[[Service], str],
    secrets: str,
) -> None:
    async with harness(
        service,
        database_url=database_of(service),
        amqp_url=servers.amqp_url,
        signer=signer,
        clock=clock,
        stripe_webhook_secret=secrets,
    ) as made:
        till = Till(made)
        assert (await till.send(till.event("customer.created", {"id": "cus_0"}))).status_code == 200


def test_production_needs_real_keys() -> None:
    urls: dict[str, Any] = {
        "database_url": "postgresql://x?sslmode=verify-full",
        "amqp_url": "amqps://x",
        "token_issuer": "https://clinic.example.org",
    }
    with pytest.raises(ValueError, match="CLINIC_STRIPE_SECRET_KEY, CLINIC_STRIPE_WEBHOOK_SECRET"):
        BillingSettings(environment="production", **urls)
    real = {"stripe_secret_key": "sk_live_x", "stripe_webhook_secret": "whsec_x"}
    shown = BillingSettings(environment="production", **urls | real).redacted()
    assert "sk_live_x" not in json.dumps(shown)
