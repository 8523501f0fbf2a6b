"""The ledger of messages as callers may see it: a patient their own, staff those of their places."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from clinic_shared import merges
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.policy import Decision
from clinic_shared.principal import Principal

from clinic_notifications import access, planned, store, tables, together_store
from clinic_notifications.domain import Message, Purpose
from clinic_notifications.planned import PLANNED, PlannedMessage

MESSAGES = access.Stands(
    patient_id=tables.message.c.patient_id,
    centre_id=tables.message.c.centre_id,
    department_id=tables.message.c.department_id,
)
TO_COME = access.Stands(
    patient_id=planned.column("patient_id"),
    centre_id=planned.column("centre_id"),
    department_id=planned.column("department_id"),
)
AnyMessage = Message | PlannedMessage


async def list_messages(
    tx: Transaction,
    *,
    caller: Principal,
    patient_id: UUID | None,
    status: str | None,
    purpose: Purpose | None,
    after: UUID | None,
    limit: int,
) -> list[AnyMessage]:
    """Return what was sent and, as `planned`, what will be; in the order of ids.

    Of a patient they are those about any record that is the person's.
    """
    person = await merges.records_of(tx, patient_id) if patient_id is not None else ()
    found: list[AnyMessage] = []
    if status != PLANNED:
        messages = await store.list_messages(
            tx,
            limit=limit,
            after=after,
            person=person,
            status=status,
            purpose=purpose.value if purpose else None,
            visible=access.visible_to(tx, MESSAGES, caller=caller),
        )
        found += await _with_joined(tx, messages)
    if status in {None, PLANNED} and purpose in {None, Purpose.REMINDER}:
        found += await planned.list_planned(
            tx,
            limit=limit,
            after=after,
            person=person,
            visible=access.visible_to(tx, TO_COME, caller=caller),
        )
    _audit(tx, None, patient_id)
    return sorted(found, key=lambda m: m.message_id)[:limit]


async def read_message(tx: Transaction, message_id: UUID, *, caller: Principal) -> AnyMessage:
    found: AnyMessage | None = await store.find_message(tx, message_id)
    found, decision = access.permit(tx, found or await planned.find_planned(tx, message_id), caller=caller)
    _audit(tx, message_id, found.patient_id, why=decision)
    return (await _with_joined(tx, [found]))[0] if isinstance(found, Message) else found


async def _with_joined(tx: Transaction, messages: Sequence[Message]) -> list[Message]:
    results = [m.message_id for m in messages if m.purpose is Purpose.RESULT_READY]
    joined = await together_store.joined(tx, results)
    return [replace(m, also_about=joined.get(m.message_id, ())) for m in messages]


def _audit(
    tx: Transaction, message_id: UUID | None, patient_id: UUID | None, *, why: Decision | None = None
) -> None:
    tx.audit(
        AuditEntry(
            action=Action.READ,
            resource_type="Communication",
            resource_id=message_id,
            patient_id=patient_id,
            details=why.explained() if why else {},
        )
    )
