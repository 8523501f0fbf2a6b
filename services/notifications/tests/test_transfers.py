"""What the law of a jurisdiction doesn't let out of the country isn't sent there, and that is on record."""

import json

import pytest
from clinic_notifications.domain import Channel
from clinic_notifications.sending import Vendors
from clinic_notifications.settings import NotificationSettings
from clinic_shared.events import audit_outbox
from sqlalchemy import select

from .conftest import Clinic


def follow(clinic: Clinic, jurisdiction: str, **more: str) -> None:
    """Have the service send as a deployment of this jurisdiction does."""
    settings = clinic.notifications.runtime.settings
    assert isinstance(settings, NotificationSettings)
    changed = settings.model_copy(update={"jurisdiction": jurisdiction, **more})
    runtime = clinic.notifications.runtime
    adapters = runtime.get(Vendors).adapters
    runtime.provide(Vendors(adapters, abroad=Vendors.abroad_of(changed)))


async def blocked(clinic: Clinic) -> list[tuple[str, str]]:
    async with clinic.notifications.runtime.database.transaction() as tx:
        rows = await tx.fetch_all(select(audit_outbox.c.record).order_by(audit_outbox.c.id))
    records = [json.loads(row.record) for row in rows]
    return [
        (r["details"]["channel"], r["details"]["country"])
        for r in records
        if r["outcome"] == "4" and r["details"].get("cause") == "transfer-not-allowed"
    ]


async def test_a_message_takes_the_channel_whose_vendor_is_at_home(clinic: Clinic) -> None:
    follow(clinic, "152-fz", twilio_country="RU")
    await clinic.book()
    await clinic.send_due()
    [sent] = await clinic.inbox()
    assert sent["channel"] == "sms"
    assert await blocked(clinic) == [("whatsapp", "US")]


async def test_nothing_goes_out_where_every_vendor_is_abroad(clinic: Clinic) -> None:
    follow(clinic, "152-fz")
    await clinic.book()
    await clinic.send_due()
    assert await clinic.inbox() == []
    [message] = await clinic.messages(purpose="appointment-confirmation")
    assert (message["status"], message["failure_code"]) == ("failed", "transfer-not-allowed")
    assert await blocked(clinic) == [("whatsapp", "US"), ("sms", "US"), ("email", "US")]


@pytest.mark.parametrize(
    ("jurisdiction", "also_to", "abroad"),
    [("gdpr", "", set()), ("hipaa", "", set()), ("152-fz", "US", set()), ("152-fz", "", set(Channel))],
)
def test_each_jurisdiction_says_which_vendors_are_abroad(
    jurisdiction: str, also_to: str, abroad: set[Channel]
) -> None:
    settings = NotificationSettings(
        database_url="postgresql://nowhere.invalid/none",
        amqp_url="amqp://nowhere.invalid",
        jurisdiction=jurisdiction,
        transfers_also_to=also_to,
    )
    assert set(Vendors.abroad_of(settings)) == abroad
