"""What vendors report about messages: kept once each, and moving a message only forward.

A report may come twice, out of order, and before our own record that the vendor accepted the message.
It names our message id, or failing that the vendor's reference, for which it then waits in its table.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from clinic_shared.database import Transaction
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from clinic_notifications import fallback, store
from clinic_notifications.domain import Failure, Message, MessageStatus, steps_towards
from clinic_notifications.events import message_event
from clinic_notifications.tables import delivery_status, message


@dataclass(frozen=True, kw_only=True)
class Report:
    """One status of one message at one vendor; `message_id` when the vendor hands it back to us."""

    provider: str
    reference: str
    status: MessageStatus
    message_id: UUID | None
    failure: Failure
    occurred_at: datetime


async def take_report(tx: Transaction, report: Report) -> bool:
    """Keep a report and let it take effect; False when it had come before."""
    await lock_reference(tx, report.provider, report.reference)
    if not await _keep(tx, report):
        return False
    found = await _find(tx, report)
    if found is not None:
        await _advance(tx, found, report)
    return True


async def take_waiting_reports(tx: Transaction, accepted: Message) -> Message:
    """Apply what was reported about a reference before we knew whose it is."""
    rows = await tx.fetch_all(
        select(delivery_status).where(
            delivery_status.c.provider == accepted.provider,
            delivery_status.c.provider_reference == accepted.provider_reference,
            delivery_status.c.message_id.is_(None),
        )
    )
    for row in rows:
        report = Report(
            provider=row.provider,
            reference=row.provider_reference,
            status=MessageStatus(row.status),
            message_id=accepted.message_id,
            failure=Failure(row.failure_code or Failure.PROVIDER_ERROR),
            occurred_at=row.occurred_at,
        )
        accepted = await _advance(tx, accepted, report)
    return accepted


async def lock_reference(tx: Transaction, provider: str, reference: str) -> None:
    """Let a report and our own record of its reference not miss each other."""
    key = func.hashtextextended(f"{provider} {reference}", 0)
    await tx.execute(select(func.pg_advisory_xact_lock(key)))


async def _keep(tx: Transaction, report: Report) -> bool:
    statement = insert(delivery_status).values(
        provider=report.provider,
        provider_reference=report.reference,
        status=report.status.value,
        failure_code=report.failure.value if report.status is MessageStatus.FAILED else None,
        occurred_at=report.occurred_at,
        received_at=tx.now,
    )
    row = await tx.fetch_one(statement.on_conflict_do_nothing().returning(delivery_status.c.provider))
    return row is not None


async def _find(tx: Transaction, report: Report) -> Message | None:
    if report.message_id is not None:
        return await store.lock_message(tx, report.message_id)
    row = await tx.fetch_one(
        select(message.c.message_id).where(
            message.c.provider == report.provider, message.c.provider_reference == report.reference
        )
    )
    return None if row is None else await store.lock_message(tx, row.message_id)


async def _advance(tx: Transaction, found: Message, report: Report) -> Message:
    await tx.execute(
        update(delivery_status)
        .where(
            delivery_status.c.provider == report.provider,
            delivery_status.c.provider_reference == report.reference,
            delivery_status.c.status == report.status.value,
        )
        .values(message_id=found.message_id)
    )
    steps = steps_towards(found.status, report.status)
    if report.status is MessageStatus.FAILED and found.provider_reference not in {None, report.reference}:
        # Of a repeated call's other copy: the one that was accepted may still arrive.
        steps = ()
    for step in steps:
        found = _moved(tx, found, step, report)
    if steps:
        await store.save_message(tx, found)
    if steps and found.status is MessageStatus.FAILED:
        await fallback.try_next_channel(tx, found)
    return found


def _moved(tx: Transaction, found: Message, step: MessageStatus, report: Report) -> Message:
    now = tx.now
    if step is MessageStatus.SENT:
        found = found.sent(provider=report.provider, reference=report.reference, now=now)
        tx.emit(message_event("message-sent", found))
    elif step is MessageStatus.DELIVERED:
        found = found.delivered(now)
        tx.emit(message_event("message-delivered", found))
    elif step is MessageStatus.READ:
        # Whether a patient read it is nobody else's business: no event.
        found = found.read(now)
    else:
        found = found.failed(report.failure, now)
        tx.emit(message_event("message-failed", found))
    return found
