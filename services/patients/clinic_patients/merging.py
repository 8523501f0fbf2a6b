"""Merging two records of one person: asked for, agreed to by a second person, undone. Each step is audited on both."""

from uuid import UUID

from clinic_shared import two_people
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import ForbiddenError, NotFoundError
from clinic_shared.principal import Principal
from clinic_shared.problems import constraint_of
from sqlalchemy.exc import IntegrityError

from clinic_patients import care, merge_domain, merge_store, store
from clinic_patients.domain import Patient
from clinic_patients.events import merge_event, patient_event
from clinic_patients.exports import exporting
from clinic_patients.merge_domain import Merge, MergeNotInForceError, MergeState, NotMergeableError
from clinic_patients.registry import REGISTRAR_SCOPE
from clinic_patients.tables import PATIENT_MERGED_ONCE, patient_merge

UPDATE = "patients.update"


async def ask(tx: Transaction, target_id: UUID, source_id: UUID, *, reason: str, caller: Principal) -> Merge:
    """Ask for `source` to be replaced by `target`. Nothing changes until a second person agrees."""
    source, target = await _both(tx, source_id, target_id, caller=caller)
    merge_domain.merged(source, target, now=tx.now)
    merge_id = await two_people.ask(
        tx, patient_merge, reason=reason, source_id=source_id, target_id=target_id, version=1
    )
    return await _told(tx, merge_id, "ask")


async def approve(tx: Transaction, target_id: UUID, merge_id: UUID, *, caller: Principal) -> Merge:
    """Agree as the second person: from the commit on both are one. Raises what `two_people.second` raises."""
    asked = await _known(tx, target_id, merge_id, caller=caller)
    source, target = await _both(tx, asked.source_id, target_id, caller=caller)
    await two_people.second(tx, patient_merge, merge_id)
    replaced, joined = merge_domain.merged(source, target, now=tx.now)
    await _close(tx, merge_id)
    # First whoever gives identifiers away: each is in force once.
    await _save(tx, replaced, joined)
    done = await _told(tx, merge_id, "approve")
    tx.emit(merge_event(done))
    return done


async def reject(
    tx: Transaction, target_id: UUID, merge_id: UUID, *, reason: str, caller: Principal
) -> Merge:
    """Refuse, or withdraw one's own request."""
    await _known(tx, target_id, merge_id, caller=caller)
    await two_people.open_one(tx, patient_merge, merge_id)
    await two_people.close(tx, patient_merge, merge_id, MergeState.REJECTED.value, reason)
    return await _told(tx, merge_id, "reject")


async def undo(tx: Transaction, target_id: UUID, merge_id: UUID, *, reason: str, caller: Principal) -> Merge:
    """Let both be two people again. What was written meanwhile stays where it was written."""
    done = await _known(tx, target_id, merge_id, caller=caller)
    source, target = await _both(tx, done.source_id, target_id, caller=caller)
    locked = await merge_store.lock(tx, merge_id)
    if locked is None or locked.state is not MergeState.APPROVED:
        raise MergeNotInForceError
    restored, left = merge_domain.parted(source, target, now=tx.now)
    await merge_store.undo(tx, merge_id, reason=reason)
    # What was gathered of both is nobody's to take out any more.
    await exporting.destroy_all_of(tx, done.source_id)
    await _save(tx, left, restored)
    undone = await _told(tx, merge_id, "undo")
    tx.emit(merge_event(undone))
    return undone


async def list_merges(tx: Transaction, patient_id: UUID, *, caller: Principal) -> list[Merge]:
    """Return the merges that a record is or was part of, the newest first."""
    decision = await care.permit(tx, patient_id, UPDATE, caller=caller)
    _require_registry(caller)
    tx.audit(
        AuditEntry(
            action=Action.READ,
            resource_type="Patient",
            resource_id=patient_id,
            patient_id=patient_id,
            details=decision.explained(),
        )
    )
    return await merge_store.list_of(tx, patient_id)


async def _both(
    tx: Transaction, source_id: UUID, target_id: UUID, *, caller: Principal
) -> tuple[Patient, Patient]:
    """Lock both records, in one order. Raises ConcealedError for whichever isn't the caller's business."""
    for patient_id in (target_id, source_id):
        await care.permit(tx, patient_id, UPDATE, caller=caller)
    _require_registry(caller)
    found = {
        patient_id: await store.lock_patient(tx, patient_id) for patient_id in sorted({source_id, target_id})
    }
    source, target = found[source_id], found[target_id]
    if source is None or target is None:
        raise NotMergeableError("One of them was never registered.")
    return source, target


async def _known(tx: Transaction, target_id: UUID, merge_id: UUID, *, caller: Principal) -> Merge:
    await care.permit(tx, target_id, UPDATE, caller=caller)
    _require_registry(caller)
    found = await merge_store.find(tx, merge_id)
    if found is None or found.target_id != target_id:
        raise NotFoundError
    return found


def _require_registry(caller: Principal) -> None:
    if not caller.may(REGISTRAR_SCOPE):
        raise ForbiddenError("Only the registry decides who is one person.")


async def _close(tx: Transaction, merge_id: UUID) -> None:
    try:
        await two_people.close(tx, patient_merge, merge_id, MergeState.APPROVED.value, None)
    except IntegrityError as error:
        # Unreachable while both records are locked; the constraint is what makes that a proof.
        if constraint_of(error) == PATIENT_MERGED_ONCE:
            raise NotMergeableError("One of them was replaced before.") from error
        raise


async def _save(tx: Transaction, *records: Patient) -> None:
    for record in records:
        await store.save_patient(tx, record)
        tx.emit(patient_event("patient-updated", record))


async def _told(tx: Transaction, merge_id: UUID, act: str) -> Merge:
    """Audit an act on both records; return the merge as it is now."""
    merge = await merge_store.find(tx, merge_id)
    assert merge is not None  # noqa: S101  # nobody removes one
    for patient_id, role in ((merge.target_id, "target"), (merge.source_id, "source")):
        tx.audit(
            AuditEntry(
                action=Action.UPDATE,
                resource_type="Patient",
                resource_id=patient_id,
                patient_id=patient_id,
                details={"merge": str(merge_id), "act": act, "as": role},
            )
        )
    return merge
