"""What vendors called us back with, worked off: each callback is applied, superseded or rejected, or parked.

One that can't be read was signed by its vendor all the same: it waits for a person, or for a release that reads it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

from clinic_shared import metrics
from clinic_shared.database import Transaction
from clinic_shared.errors import DomainError
from clinic_shared.inbound.accounts import Interface
from clinic_shared.intake import Item, intake_table
from prometheus_client import Counter
from sqlalchemy import insert, select

from clinic_notifications import statuses, store
from clinic_notifications.channels import twilio, whatsapp
from clinic_notifications.statuses import Report
from clinic_notifications.tables import callback

MESSAGE_ID = "message_id"
"""The attribute of an item that holds our message's id, where it came in the address."""

REPORTS = Counter(
    "clinic_message_reports_total",
    "Statuses that vendors reported: new, repeated",
    ["provider", "outcome"],
    registry=metrics.REGISTRY,
)


class Disposition(StrEnum):
    APPLIED = "applied"
    SUPERSEDED = "superseded"
    REJECTED = "rejected"


class UnreadableCallbackError(DomainError):
    """Signed by the vendor, and of its shape, but it names an instant beyond time."""

    slug = "unreadable-callback"
    title = "The callback can't be read"
    status = 400
    fix = "The vendor's format has changed: process it again with a release that reads it, or discard it."


@dataclass(frozen=True)
class Told:
    """What a callback says: statuses of our messages, and what patients wrote, by the vendor's reference."""

    reports: Sequence[Report] = ()
    replies: Mapping[str, dict[str, Any]] = field(default_factory=dict)


async def process(tx: Transaction, item: Item) -> None:
    """Let a callback take effect: what the intake worker calls. Raises UnreadableCallbackError, ValidationError."""
    told = _READERS[item.interface](item)
    fresh = [await _take(tx, report) for report in sorted(told.reports, key=_place)]
    fresh += [
        await store.keep_reply(tx, item.interface, reference, content)
        for reference, content in told.replies.items()
    ]
    if not fresh:
        await _record(tx, item, Disposition.REJECTED, reason="of-no-message")
    else:
        await _record(tx, item, Disposition.APPLIED if any(fresh) else Disposition.SUPERSEDED)


def _place(report: Report) -> tuple[str, str]:
    """By references and then ids, so that two callbacks about the same messages don't deadlock."""
    return report.reference, str(report.message_id)


async def _take(tx: Transaction, report: Report) -> bool:
    fresh = await statuses.take_report(tx, report)
    told = REPORTS.labels(provider=report.provider, outcome="new" if fresh else "repeated")
    tx.count(partial(told.inc))
    return fresh


def _read_whatsapp(item: Item) -> Told:
    try:
        notification = whatsapp.Notification.model_validate_json(item.body)
        return Told(notification.reports(), notification.replies())
    except (OverflowError, OSError):
        raise UnreadableCallbackError from None


def _read_twilio(item: Item) -> Told:
    own_id = item.attributes.get(MESSAGE_ID)
    report = twilio.report_of(
        form_of(item.body), message_id=UUID(own_id) if own_id else None, received_at=item.received_at
    )
    return Told([report] if report else ())


def form_of(body: bytes) -> dict[str, str]:
    return dict(parse_qsl(body.decode("latin-1"), keep_blank_values=True))


_READERS = {whatsapp.PROVIDER: _read_whatsapp, twilio.PROVIDER: _read_twilio}
PROVIDERS = tuple(_READERS)


async def _record(
    tx: Transaction, item: Item, disposition: Disposition, *, reason: str | None = None
) -> None:
    await tx.execute(
        insert(callback).values(
            intake_id=item.id, disposition=disposition.value, reason=reason, decided_at=tx.now
        )
    )


CALLBACKS = Interface(
    fates=select(callback.c.intake_id.label("item_id"), callback.c.disposition, callback.c.reason),
    partner=intake_table.c.interface,
)
"""How they are counted: each has one disposition, once it has been processed."""
