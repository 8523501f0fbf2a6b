"""Vendors call back while the database, the broker, or both are away: kept and answered, or refused for now."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from clinic_local.fakes.settings import FakesSettings
from clinic_local.fakes.whatsapp import notification_body, sign
from clinic_notifications import tables
from clinic_notifications.app import intake_worker, service
from clinic_shared.auth import TokenSigner
from clinic_shared.service import Service
from clinic_shared.testing import FixedClock, Servers, ServiceHarness, harness
from clinic_shared.topology import declare_all
from sqlalchemy import select

from .test_webhooks import WHATSAPP, status

SETTINGS = FakesSettings()
NO_DATABASE = "postgresql://nobody@127.0.0.1:9/none"
NO_BROKER = "amqp://guest:guest@127.0.0.1:9/"


@asynccontextmanager
async def running(
    signer: TokenSigner, clock: FixedClock, *, database_url: str, amqp_url: str
) -> AsyncIterator[ServiceHarness]:
    async with harness(
        service, database_url=database_url, amqp_url=amqp_url, signer=signer, clock=clock
    ) as made:
        yield made


async def post(notifications: ServiceHarness, *statuses: dict[str, Any]) -> httpx.Response:
    body = notification_body(SETTINGS.whatsapp_phone_number_id, {"statuses": list(statuses)})
    headers = {
        "content-type": "application/json",
        "x-hub-signature-256": sign(SETTINGS.whatsapp_app_secret, body),
    }
    return await notifications.http.post(WHATSAPP, content=body, headers=headers)


async def kept_statuses(notifications: ServiceHarness) -> list[str]:
    async with notifications.runtime.database.transaction() as tx:
        return [row.status for row in await tx.fetch_all(select(tables.delivery_status))]


async def test_with_the_broker_down_a_callback_is_kept_and_takes_effect(
    signer: TokenSigner, clock: FixedClock, database_of: Callable[[Service], str]
) -> None:
    async with running(signer, clock, database_url=database_of(service), amqp_url=NO_BROKER) as notifications:
        assert (await post(notifications, status("wamid.A", "sent"))).status_code == 200
        assert await intake_worker(notifications.runtime).process_waiting()
        assert await kept_statuses(notifications) == ["sent"]


async def test_with_the_database_down_a_callback_waits_on_the_queue_and_takes_effect_once(
    signer: TokenSigner, clock: FixedClock, database_of: Callable[[Service], str], vhost: Servers
) -> None:
    await declare_all(vhost.amqp_url, vhost.management_url, ())
    async with running(signer, clock, database_url=NO_DATABASE, amqp_url=vhost.amqp_url) as away:
        answers = [await post(away, status("wamid.A", "delivered")) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
    async with running(signer, clock, database_url=database_of(service), amqp_url=vhost.amqp_url) as back:
        worker = intake_worker(back.runtime)
        while await worker.drain_batch():
            continue
        while await worker.process_waiting():
            continue
        assert await kept_statuses(back) == ["delivered"]
        async with back.runtime.database.transaction() as tx:
            assert len(await tx.fetch_all(select(tables.callback))) == 1


async def test_with_both_down_the_vendor_is_told_to_come_again(
    signer: TokenSigner, clock: FixedClock
) -> None:
    async with running(signer, clock, database_url=NO_DATABASE, amqp_url=NO_BROKER) as away:
        answer = await post(away, status("wamid.A", "sent"))
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
