"""Booking, moving and giving up appointments.

The resources of an appointment are locked in the order of their ids; then conflicts can be read and
listed, and the exclusion constraint on `allocation` has the last word.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from clinic_shared import merges
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import ForbiddenError, NotFoundError, ReferenceNotYetKnownError
from clinic_shared.ids import uuid7
from clinic_shared.policy import Decision
from clinic_shared.principal import Principal
from clinic_shared.problems import constraint_of
from sqlalchemy.exc import IntegrityError

from clinic_scheduling import access, store, tables
from clinic_scheduling.domain import (
    Appointment,
    AppointmentId,
    AppointmentInThePastError,
    AppointmentStatus,
    CatalogueService,
    Interval,
    NotOfferedError,
    OutsideAvailabilityError,
    ReferralMismatchError,
    Resource,
    ResourceId,
    ResourceKind,
    SlotTakenError,
    check_offered,
)
from clinic_scheduling.events import appointment_event

READ, BOOK, MANAGE = "appointments.read", "appointments.book", "appointments.manage"


@dataclass(frozen=True, kw_only=True)
class BookAppointment:
    patient_id: UUID
    service_id: UUID
    centre_id: UUID
    department_id: UUID
    starts_at: datetime
    practitioner_id: UUID | None
    room_id: UUID | None
    device_ids: tuple[UUID, ...] = ()
    referral_id: UUID | None = None
    reason: str | None = None
    booked_through: str = "registry"


async def book_appointment(tx: Transaction, command: BookAppointment, *, caller: Principal) -> Appointment:
    """Take the time for the patient, or raise SlotTakenError with every conflict.

    Asked for by a record that another one has replaced, it is booked for the one in use.
    """
    caller.require_patient(command.patient_id)
    command = replace(command, patient_id=await merges.survivor_of(tx, command.patient_id))
    service = await _service_for(tx, command, caller=caller)
    await _check_references(tx, command)
    appointment = _new_appointment(tx, command, service)
    resources = await _lock_resources(tx, appointment)
    check_offered(service, department_id=command.department_id, kinds=[r.kind for r in resources])
    await _check_free(tx, appointment, resources)
    await store.add_appointment(tx, appointment)
    await _allocate(tx, appointment)
    await _publish(tx, "appointment-booked", appointment, Action.CREATE)
    return appointment


async def reschedule_appointment(
    tx: Transaction,
    appointment_id: UUID,
    *,
    starts_at: datetime,
    practitioner_id: UUID | None,
    room_id: UUID | None,
    caller: Principal,
    expected_version: int | None,
) -> Appointment:
    """Move the same appointment to another time, in one step: the old time is free only if the new one is taken."""
    old = await lock_for(tx, appointment_id, BOOK, caller=caller, expected_version=expected_version)
    time = Interval(starts_at, starts_at + (old.time.ends_at - old.time.starts_at))
    if starts_at < tx.now:
        raise AppointmentInThePastError
    moved = old.rescheduled(
        time,
        practitioner_id=ResourceId(practitioner_id) if practitioner_id else old.practitioner_id,
        room_id=ResourceId(room_id) if room_id else old.room_id,
    )
    resources = await _lock_resources(tx, moved)
    await store.release(tx, old.appointment_id)
    await _check_free(tx, moved, resources)
    await store.save_appointment(tx, moved)
    await _allocate(tx, moved)
    await _publish(
        tx,
        "appointment-rescheduled",
        moved,
        Action.UPDATE,
        previous_starts_at=old.time.starts_at,
        previous_ends_at=old.time.ends_at,
        rescheduled_at=tx.now,
    )
    return moved


async def cancel_appointment(
    tx: Transaction,
    appointment_id: UUID,
    *,
    reason_code: str,
    caller: Principal,
    expected_version: int | None,
) -> Appointment:
    """Give the time back."""
    old = await lock_for(tx, appointment_id, BOOK, caller=caller, expected_version=expected_version)
    cancelled = old.cancelled(reason_code=reason_code, now=tx.now)
    await store.release(tx, old.appointment_id)
    await store.save_appointment(tx, cancelled)
    await _publish(tx, "appointment-cancelled", cancelled, Action.UPDATE)
    return cancelled


_EVENT_OF = {
    AppointmentStatus.CONFIRMED: "appointment-confirmed",
    AppointmentStatus.ARRIVED: "patient-arrived",
    AppointmentStatus.COMPLETED: "appointment-completed",
    AppointmentStatus.MISSED: "appointment-missed",
}


async def advance_appointment(
    tx: Transaction,
    appointment_id: UUID,
    status: AppointmentStatus,
    *,
    caller: Principal,
    expected_version: int | None,
) -> Appointment:
    """Record that the patient confirmed, arrived, was seen, or didn't come."""
    permission = BOOK if status is AppointmentStatus.CONFIRMED else MANAGE
    old = await lock_for(tx, appointment_id, permission, caller=caller, expected_version=expected_version)
    moved = old.moved_to(status, now=tx.now)
    if status is AppointmentStatus.MISSED:
        await store.release(tx, old.appointment_id)
    await store.save_appointment(tx, moved)
    await _publish(tx, _EVENT_OF[status], moved, Action.UPDATE)
    return moved


async def read_appointment(tx: Transaction, appointment_id: UUID, *, caller: Principal) -> Appointment:
    """Return an appointment the caller may see; the reading is audited."""
    appointment = await store.find_appointment(tx, appointment_id)
    decision = await access.permit(tx, appointment, READ, caller=caller)
    assert appointment is not None  # noqa: S101  # what isn't there isn't permitted
    _audit(tx, Action.READ, appointment, why=decision)
    return appointment


async def list_appointments(
    tx: Transaction,
    *,
    caller: Principal,
    patient_id: UUID | None,
    department_id: UUID | None,
    practitioner_id: UUID | None,
    window: Interval | None,
    after: UUID | None,
    limit: int,
) -> list[Appointment]:
    """Return what the caller may see: a patient their own, a doctor also those of whom they treat.

    Of a patient they are those of all records that are the person's.
    """
    person = await merges.records_of(tx, patient_id) if patient_id is not None else ()
    found = await store.list_appointments(
        tx,
        limit=limit,
        after=after,
        person=person,
        department_id=department_id,
        practitioner_id=practitioner_id,
        window=window,
        visible=access.visible_to(tx, READ, caller=caller, person=person),
    )
    for appointment in found:
        _audit(tx, Action.READ, appointment)
    return found


async def lock_for(
    tx: Transaction,
    appointment_id: UUID,
    permission: str,
    *,
    caller: Principal,
    expected_version: int | None,
) -> Appointment:
    """Lock an appointment for a change. Raises ConcealedError, PreconditionFailedError."""
    appointment = await store.lock_appointment(tx, appointment_id)
    await access.permit(tx, appointment, permission, caller=caller)
    assert appointment is not None  # noqa: S101  # what isn't there isn't permitted
    tx.require_version(appointment.version, expected_version)
    return appointment


async def _service_for(tx: Transaction, command: BookAppointment, *, caller: Principal) -> CatalogueService:
    if command.starts_at < tx.now:
        raise AppointmentInThePastError
    service = await store.find_service(tx, command.service_id)
    if service is None:
        raise NotFoundError("There is no such service.")
    if caller.kind == "staff":
        caller.require_place(centre_id=command.centre_id, department_id=command.department_id)
    elif not service.online_bookable:
        raise ForbiddenError("This service is booked through the clinic.")
    return service


async def _check_references(tx: Transaction, command: BookAppointment) -> None:
    """What belongs to others may not have arrived here yet: the gateway tries again for two seconds."""
    belongs = await store.is_department_of(tx, command.department_id, command.centre_id)
    if belongs is None:
        raise ReferenceNotYetKnownError("The department is not known here yet.", reference="department_id")
    if not belongs:
        raise NotOfferedError("The department is closed or belongs to another centre.")
    if not await store.is_patient_known(tx, command.patient_id):
        raise ReferenceNotYetKnownError("The patient is not known here yet.", reference="patient_id")
    if command.referral_id is not None:
        await _check_referral(tx, command, command.referral_id)


async def _check_referral(tx: Transaction, command: BookAppointment, referral_id: UUID) -> None:
    referral = await store.find_referral(tx, referral_id)
    if referral is None:
        raise ReferenceNotYetKnownError("The referral is not known here yet.", reference="referral_id")
    theirs = await merges.are_one_person(tx, referral.patient_id, command.patient_id)
    if not theirs or referral.to_department_id != command.department_id:
        raise ReferralMismatchError


def _new_appointment(tx: Transaction, command: BookAppointment, service: CatalogueService) -> Appointment:
    return Appointment(
        appointment_id=AppointmentId(uuid7()),
        version=1,
        status=AppointmentStatus.BOOKED,
        patient_id=command.patient_id,
        practitioner_id=ResourceId(command.practitioner_id) if command.practitioner_id else None,
        room_id=ResourceId(command.room_id) if command.room_id else None,
        device_ids=tuple(ResourceId(d) for d in command.device_ids),
        service_id=service.service_id,
        service_code=service.code,
        centre_id=command.centre_id,
        department_id=command.department_id,
        time=Interval(command.starts_at, command.starts_at + service.duration),
        referral_id=command.referral_id,
        booked_through=command.booked_through,
        booked_at=tx.now,
        reason=command.reason,
    )


async def _lock_resources(tx: Transaction, appointment: Appointment) -> list[Resource]:
    resources = await store.lock_resources(tx, appointment.resource_ids)
    missing = set(appointment.resource_ids) - {r.resource_id for r in resources}
    if missing:
        raise ReferenceNotYetKnownError(
            "A practitioner, room or device is not known here.",
            reference="resource_id",
            unknown=sorted(str(m) for m in missing),
        )
    for resource in resources:
        _check_place(resource, appointment)
    return resources


def _check_place(resource: Resource, appointment: Appointment) -> None:
    if resource.kind is ResourceKind.PRACTITIONER:
        if appointment.department_id not in resource.department_ids:
            raise NotOfferedError("The practitioner doesn't work in this department.")
    elif resource.centre_id != appointment.centre_id:
        raise NotOfferedError(f"The {resource.kind} is in another centre.")


async def _check_free(tx: Transaction, appointment: Appointment, resources: list[Resource]) -> None:
    kinds = {r.resource_id: r.kind for r in resources}
    taken = await store.list_allocations(tx, appointment.resource_ids, appointment.time)
    if taken:
        raise _slot_taken([(kinds[resource_id], resource_id, time) for resource_id, time in taken])
    if appointment.practitioner_id is None:
        return
    availability = await store.find_availability(
        tx, appointment.practitioner_id, appointment.centre_id, appointment.time
    )
    if availability is None or not availability.covers(appointment.time):
        raise OutsideAvailabilityError


async def _allocate(tx: Transaction, appointment: Appointment) -> None:
    try:
        await store.allocate(tx, appointment)
    except IntegrityError as error:
        # Unreachable while everyone locks first; the constraint is what makes that a proof.
        if constraint_of(error) == tables.NO_OVERLAP:
            raise _slot_taken([]) from error
        raise


def _slot_taken(conflicts: list[tuple[ResourceKind, ResourceId, Interval]]) -> SlotTakenError:
    return SlotTakenError(
        conflicts=[
            {
                "resource_kind": kind.value,
                "resource_id": str(resource_id),
                "starts_at": time.starts_at.isoformat(),
                "ends_at": time.ends_at.isoformat(),
            }
            for kind, resource_id, time in conflicts
        ]
    )


async def _publish(
    tx: Transaction, event_name: str, appointment: Appointment, action: Action, **stamps: datetime
) -> None:
    names = await store.names_for(tx, appointment)
    tx.emit(
        appointment_event(
            event_name,
            appointment,
            time_zone=names.time_zone,
            service_name=names.service_name,
            practitioner_name=names.practitioner_name,
            **stamps,
        )
    )
    _audit(tx, action, appointment)


def _audit(tx: Transaction, action: Action, appointment: Appointment, *, why: Decision | None = None) -> None:
    tx.audit(
        AuditEntry(
            action=action,
            resource_type="Appointment",
            resource_id=appointment.appointment_id,
            patient_id=appointment.patient_id,
            details={"status": appointment.status.value} | (why.explained() if why else {}),
        )
    )
