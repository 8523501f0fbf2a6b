"""The ledger of messages as callers may see it: a patient their own, staff those of their places."""

from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import ConcealedError, NotFoundError
from clinic_shared.principal import Principal

from clinic_notifications import planned, store
from clinic_notifications.domain import Message, Purpose
from clinic_notifications.planned import PLANNED, PlannedMessage

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
    """Return what was sent and, as `planned`, what will be; in the order of ids."""
    if caller.kind == "patient":
        patient_id = caller.patient_id
    elsewhere = not (caller.network or caller.kind == "patient")
    within = (caller.centre_ids, caller.department_ids) if elsewhere else None
    found: list[AnyMessage] = []
    if status != PLANNED:
        found += await store.list_messages(
            tx,
            limit=limit,
            after=after,
            patient_id=patient_id,
            status=status,
            purpose=purpose.value if purpose else None,
            within=within,
        )
    if status in {None, PLANNED} and purpose in {None, Purpose.REMINDER}:
        found += await planned.list_planned(
            tx, limit=limit, after=after, patient_id=patient_id, within=within
        )
    _audit(tx, None, patient_id)
    return sorted(found, key=lambda m: m.message_id)[:limit]


async def read_message(tx: Transaction, message_id: UUID, *, caller: Principal) -> AnyMessage:
    found: AnyMessage | None = await store.find_message(tx, message_id)
    found = found or await planned.find_planned(tx, message_id)
    if found is None:
        raise NotFoundError
    if found.patient_id is not None:
        caller.require_patient(found.patient_id)
    elif caller.kind == "patient":
        raise ConcealedError
    if caller.kind == "staff" and not caller.works_in(
        centre_id=found.centre_id, department_id=found.department_id
    ):
        raise ConcealedError
    _audit(tx, message_id, found.patient_id)
    return found


def _audit(tx: Transaction, message_id: UUID | None, patient_id: UUID | None) -> None:
    tx.audit(
        AuditEntry(
            action=Action.READ, resource_type="Communication", resource_id=message_id, patient_id=patient_id
        )
    )
