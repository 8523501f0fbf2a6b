"""Asking another department to see a patient, and answering.

Both departments see the same referral; the sender asks, withdraws and closes, the receiver accepts,
declines and reports. That it is booked and that the patient was seen is heard from scheduling.
"""

from dataclasses import dataclass, replace
from uuid import UUID

from clinic_shared import merges
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import InvalidRequestError, ReferenceNotYetKnownError
from clinic_shared.ids import uuid7
from clinic_shared.policy import Decision
from clinic_shared.principal import Principal

from clinic_referrals import access, store
from clinic_referrals.domain import Place, Priority, Referral, ReferralId, ReferralStatus, check_edge
from clinic_referrals.events import referral_event


@dataclass(frozen=True, kw_only=True)
class CreateReferral:
    patient_id: UUID
    from_department_id: UUID
    to_department_id: UUID
    to_practitioner_id: UUID | None
    service_code: str | None
    priority: Priority
    question: str
    source_encounter_id: UUID | None


async def create_referral(tx: Transaction, command: CreateReferral, *, caller: Principal) -> Referral:
    """Ask another department to see a patient; of a record that was replaced, the patient in use."""
    sender = await _open_place(tx, command.from_department_id, field="from_department_id")
    receiver = await _open_place(tx, command.to_department_id, field="to_department_id")
    caller.require_place(centre_id=sender.centre_id, department_id=sender.department_id)
    check_edge(sender, receiver)
    patient_id = await merges.survivor_of(tx, command.patient_id)
    if not await store.is_patient_known(tx, patient_id):
        raise ReferenceNotYetKnownError("The patient is not known here yet.", reference="patient_id")
    await _check_practitioner(tx, command.to_practitioner_id, receiver)
    referral = Referral(
        referral_id=ReferralId(uuid7()),
        version=1,
        status=ReferralStatus.CREATED,
        patient_id=patient_id,
        priority=command.priority,
        sender=sender,
        from_practitioner_id=caller.subject,
        receiver=receiver,
        to_practitioner_id=command.to_practitioner_id,
        service_code=command.service_code,
        source_encounter_id=command.source_encounter_id,
        question=command.question,
        created_at=tx.now,
    )
    await store.add_referral(tx, referral)
    _record(tx, referral, Action.CREATE)
    return referral


async def accept_referral(
    tx: Transaction, referral_id: UUID, *, caller: Principal, expected_version: int | None
) -> Referral:
    old = await _lock_as_receiver(tx, referral_id, caller, expected_version)
    return await _save(tx, old.moved_to(ReferralStatus.ACCEPTED, now=tx.now))


async def decline_referral(
    tx: Transaction,
    referral_id: UUID,
    *,
    reason_code: str,
    comment: str | None,
    caller: Principal,
    expected_version: int | None,
) -> Referral:
    old = await _lock_as_receiver(tx, referral_id, caller, expected_version)
    declined = old.moved_to(
        ReferralStatus.DECLINED, now=tx.now, decline_reason_code=reason_code, decline_comment=comment
    )
    return await _save(tx, declined)


async def report_on_referral(
    tx: Transaction, referral_id: UUID, *, outcome: str, caller: Principal, expected_version: int | None
) -> Referral:
    """Answer the question. The sender's department sees it at once and closes the referral."""
    old = await _lock_as_receiver(tx, referral_id, caller, expected_version)
    return await _save(tx, old.moved_to(ReferralStatus.REPORTED, now=tx.now, outcome=outcome))


async def close_referral(
    tx: Transaction, referral_id: UUID, *, reason_code: str, caller: Principal, expected_version: int | None
) -> Referral:
    """Close the loop, or withdraw what isn't needed any more."""
    old = await _lock(tx, referral_id, caller, expected_version)
    caller.require_place(centre_id=old.sender.centre_id, department_id=old.sender.department_id)
    return await _save(tx, old.moved_to(ReferralStatus.CLOSED, now=tx.now, close_reason_code=reason_code))


async def read_referral(tx: Transaction, referral_id: UUID, *, caller: Principal) -> Referral:
    referral, decision = access.permit(tx, await store.find_referral(tx, referral_id), caller=caller)
    _audit(tx, Action.READ, referral, why=decision)
    return referral


async def list_referrals(
    tx: Transaction,
    *,
    caller: Principal,
    to_department_id: UUID | None,
    from_department_id: UUID | None,
    patient_id: UUID | None,
    status: ReferralStatus | None,
    after: UUID | None,
    limit: int,
) -> list[Referral]:
    """Return what touches the caller's departments; a patient's own to a patient.

    Of a patient they are those of all records that are the person's.
    """
    found = await store.list_referrals(
        tx,
        limit=limit,
        after=after,
        to_department_id=to_department_id,
        from_department_id=from_department_id,
        person=await merges.records_of(tx, patient_id) if patient_id is not None else (),
        status=status,
        visible=access.visible_to(tx, caller=caller),
    )
    for referral in found:
        _audit(tx, Action.READ, referral)
    return found


async def hear_of_appointment(
    tx: Transaction, referral_id: UUID, *, appointment_id: UUID, appointment_status: str
) -> None:
    """Follow the referral's appointment: booked, seen, or fallen through."""
    referral = await store.lock_referral(tx, referral_id)
    if referral is None:
        raise ReferenceNotYetKnownError("The referral is not known here.", reference="referral_id")
    mine = referral.appointment_id == appointment_id
    if appointment_status in {"booked", "confirmed"} and referral.can_move_to(ReferralStatus.BOOKED):
        await _save(tx, referral.moved_to(ReferralStatus.BOOKED, now=tx.now, appointment_id=appointment_id))
    elif appointment_status == "completed" and mine and referral.can_move_to(ReferralStatus.SEEN):
        await _save(tx, referral.moved_to(ReferralStatus.SEEN, now=tx.now))
    elif appointment_status in {"cancelled", "missed"} and mine and referral.status is ReferralStatus.BOOKED:
        await _save(tx, referral.without_appointment())


async def hear_of_encounter(tx: Transaction, referral_id: UUID, *, encounter_id: UUID) -> None:
    """Remember the encounter that the referral led to; the visit may be recorded before it is completed."""
    referral = await store.lock_referral(tx, referral_id)
    if referral is None:
        raise ReferenceNotYetKnownError("The referral is not known here.", reference="referral_id")
    if referral.can_move_to(ReferralStatus.SEEN):
        await _save(tx, referral.moved_to(ReferralStatus.SEEN, now=tx.now, encounter_id=encounter_id))
    elif referral.encounter_id is None:
        await store.save_referral(tx, replace(referral, encounter_id=encounter_id))


async def _open_place(tx: Transaction, department_id: UUID, *, field: str) -> Place:
    found = await store.find_place(tx, department_id)
    if found is None:
        raise ReferenceNotYetKnownError("The department is not known here yet.", reference=field)
    place, is_open = found
    if not is_open:
        raise InvalidRequestError("The department is closed.", reference=field)
    return place


async def _check_practitioner(tx: Transaction, practitioner_id: UUID | None, receiver: Place) -> None:
    if practitioner_id is None:
        return
    works = await store.works_in(tx, practitioner_id, receiver.department_id)
    if works is None:
        raise ReferenceNotYetKnownError(
            "The practitioner is not known here yet.", reference="to_practitioner_id"
        )
    if not works:
        raise InvalidRequestError("The practitioner doesn't work in the receiving department.")


async def _lock(
    tx: Transaction, referral_id: UUID, caller: Principal, expected_version: int | None
) -> Referral:
    referral, _ = access.permit(tx, await store.lock_referral(tx, referral_id), caller=caller)
    tx.require_version(referral.version, expected_version)
    return referral


async def _lock_as_receiver(
    tx: Transaction, referral_id: UUID, caller: Principal, expected_version: int | None
) -> Referral:
    referral = await _lock(tx, referral_id, caller, expected_version)
    caller.require_place(centre_id=referral.receiver.centre_id, department_id=referral.receiver.department_id)
    return referral


async def _save(tx: Transaction, referral: Referral) -> Referral:
    await store.save_referral(tx, referral)
    _record(tx, referral, Action.UPDATE)
    return referral


def _record(tx: Transaction, referral: Referral, action: Action) -> None:
    tx.emit(referral_event(referral))
    _audit(tx, action, referral)


def _audit(tx: Transaction, action: Action, referral: Referral, *, why: Decision | None = None) -> None:
    tx.audit(
        AuditEntry(
            action=action,
            resource_type="ServiceRequest",
            resource_id=referral.referral_id,
            patient_id=referral.patient_id,
            details={"status": referral.status.value} | (why.explained() if why else {}),
        )
    )
