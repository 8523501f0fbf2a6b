"""Erasing what the law lets go: a patient's key for a class of data is destroyed, and what was derived goes too.

Each erasure is an audit record, and the audit log is the ledger: it lies in another database, so that after a restore
of this one everything that was erased since is erased again (`clinic keys replay-erasures`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from clinic_shared import event_sealing
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import NotFoundError
from clinic_shared.ids import uuid7
from sqlalchemy import func, insert, select, update

from clinic_patients import store
from clinic_patients.domain import Patient
from clinic_patients.events import patient_event
from clinic_patients.exports import exporting
from clinic_patients.protection import RetentionClass
from clinic_patients.retention import Profile, Verdict, judge
from clinic_patients.tables import erasure, legal_hold, patient_key

RECORD = "PatientErasure"
_PRIVATE_FIELDS = {RetentionClass.CONTACT: ("phones", "emails"), RetentionClass.IDENTITY: ("identifiers",)}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    retention_class: RetentionClass
    verdict: Verdict


async def erase_on_request(
    tx: Transaction,
    patient_id: UUID,
    classes: Sequence[RetentionClass],
    *,
    reason: str,
    profile: Profile,
    everything_on_hold: bool,
) -> list[Outcome]:
    """Erase the classes that may be; returns what became of each and why. Raises NotFoundError."""
    found = await store.lock_patient(tx, patient_id)
    if found is None:
        raise NotFoundError
    on_hold = everything_on_hold or await is_on_hold(tx, patient_id)
    outcomes = [
        Outcome(
            retention_class=one,
            verdict=judge(profile.rule(one), last_changed_at=found.updated_at, on_hold=on_hold, now=tx.now),
        )
        for one in dict.fromkeys(classes)
    ]
    for outcome in outcomes:
        if outcome.verdict.may_be_erased:
            await erase(tx, patient_id, outcome.retention_class, erasure_id=uuid7(), reason=reason)
        else:
            _audit(tx, Action.EXECUTE, patient_id, None, outcome.retention_class, outcome.verdict.because)
    return outcomes


async def erase(
    tx: Transaction, patient_id: UUID, retention_class: RetentionClass, *, erasure_id: UUID, reason: str
) -> bool:
    """Destroy a class of a patient's data. Returns False when this erasure was done before."""
    done = await tx.fetch_one(select(erasure.c.erasure_id).where(erasure.c.erasure_id == erasure_id))
    if done is not None:
        return False
    old = await store.lock_patient(tx, patient_id)
    if old is not None:
        left = _without(old, retention_class).succeeded_by(_without(old, retention_class), now=tx.now)
        await store.save_patient(tx, left)
        tx.emit(patient_event("patient-updated", left))
        await _destroy_key(tx, patient_id, retention_class)
        await _erase_from_log(tx, patient_id, retention_class)
        await exporting.destroy_all_of(tx, patient_id)
    values = {"patient_id": patient_id, "retention_class": retention_class.value, "erased_at": tx.now}
    await tx.execute(insert(erasure).values(erasure_id=erasure_id, reason=reason, **values))
    _audit(tx, Action.DELETE, patient_id, erasure_id, retention_class, reason)
    return True


def _without(patient: Patient, retention_class: RetentionClass) -> Patient:
    if retention_class is RetentionClass.CONTACT:
        return replace(patient, phones=(), emails=())
    return replace(patient, identifiers=())


async def _destroy_key(tx: Transaction, patient_id: UUID, retention_class: RetentionClass) -> None:
    this = (patient_key.c.patient_id == patient_id) & (patient_key.c.retention_class == retention_class.value)
    await tx.execute(update(patient_key).where(this).values(data_key=None, destroyed_at=tx.now))


async def _erase_from_log(tx: Transaction, patient_id: UUID, retention_class: RetentionClass) -> None:
    await event_sealing.take_out(tx, patient_id, _PRIVATE_FIELDS[retention_class])


def _audit(
    tx: Transaction,
    action: Action,
    patient_id: UUID,
    erasure_id: UUID | None,
    retention_class: RetentionClass,
    reason: str,
) -> None:
    tx.audit(
        AuditEntry(
            action=action,
            resource_type=RECORD,
            resource_id=erasure_id,
            patient_id=patient_id,
            reason=reason,
            details={"class": retention_class.value},
        )
    )


# -- legal holds


async def is_on_hold(tx: Transaction, patient_id: UUID) -> bool:
    row = await tx.fetch_one(
        select(func.count()).where(legal_hold.c.patient_id == patient_id, legal_hold.c.lifted_at.is_(None))
    )
    return row is not None and bool(row[0])


async def place_hold(tx: Transaction, patient_id: UUID, *, reason: str) -> UUID:
    """Keep everything of a patient until the hold is lifted. Raises NotFoundError."""
    if not await store.has_chart(tx, patient_id):
        raise NotFoundError
    hold_id = uuid7()
    placed = {"patient_id": patient_id, "reason": reason, "placed_at": tx.now}
    await tx.execute(
        insert(legal_hold).values(hold_id=hold_id, placed_by=tx.context.principal.subject, **placed)
    )
    _audit_hold(tx, Action.CREATE, patient_id, hold_id, reason)
    return hold_id


async def lift_hold(tx: Transaction, patient_id: UUID, hold_id: UUID, *, reason: str) -> datetime:
    """Raises NotFoundError when there is no such hold any more."""
    this = (legal_hold.c.hold_id == hold_id) & (legal_hold.c.patient_id == patient_id)
    lifted = await tx.fetch_one(
        update(legal_hold)
        .where(this, legal_hold.c.lifted_at.is_(None))
        .values(lifted_at=tx.now, lifted_by=tx.context.principal.subject)
        .returning(legal_hold.c.lifted_at)
    )
    if lifted is None:
        raise NotFoundError
    _audit_hold(tx, Action.UPDATE, patient_id, hold_id, reason)
    return tx.now


def _audit_hold(tx: Transaction, action: Action, patient_id: UUID, hold_id: UUID, reason: str) -> None:
    tx.audit(
        AuditEntry(
            action=action,
            resource_type="LegalHold",
            resource_id=hold_id,
            patient_id=patient_id,
            reason=reason,
        )
    )
