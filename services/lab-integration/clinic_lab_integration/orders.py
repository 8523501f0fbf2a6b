"""Orders to laboratories: each has a number of ours, which the laboratory echoes with its results."""

import secrets
from dataclasses import dataclass, replace
from uuid import UUID

from clinic_shared import merges
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import (
    ConcealedError,
    InvalidRequestError,
    NotFoundError,
    ReferenceNotYetKnownError,
)
from clinic_shared.ids import uuid7
from clinic_shared.policy import Decision
from clinic_shared.principal import Principal

from clinic_lab_integration import order_store, reading, store, worklist
from clinic_lab_integration.domain import (
    LabOrderId,
    OrderedTest,
    OrderStatus,
)
from clinic_lab_integration.errors import (
    NothingRefusedError,
    OrderNotCancellableError,
)
from clinic_lab_integration.events import order_cancelled, order_placed
from clinic_lab_integration.matching import order_key
from clinic_lab_integration.order_messages import Action as Told
from clinic_lab_integration.order_messages import Destination
from clinic_lab_integration.store import LabOrder

# Crockford's alphabet: no letter that is taken for a digit on paper.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_NUMBER_LENGTH = 12


@dataclass(frozen=True, kw_only=True)
class PlaceOrder:
    patient_id: UUID
    partner_id: UUID
    tests: tuple[OrderedTest, ...]
    priority: str
    department_id: UUID | None
    appointment_id: UUID | None
    encounter_id: UUID | None
    referral_id: UUID | None
    clinical_note: str | None


async def place_order(tx: Transaction, command: PlaceOrder, *, caller: Principal) -> LabOrder:
    """Give the order its number and say that it is placed. Results that came before it find it now.

    Asked for by a record that another one has replaced, it is placed for the one in use.
    """
    command = replace(command, patient_id=await merges.survivor_of(tx, command.patient_id))
    await _check_references(tx, command)
    centre_id, department_id = await _place(tx, command, caller)
    caller.require_place(centre_id=centre_id, department_id=department_id)
    order = LabOrder(
        lab_order_id=LabOrderId(uuid7()),
        version=1,
        status=OrderStatus.PLACED,
        placer_order_number="PC-" + "".join(secrets.choice(_ALPHABET) for _ in range(_NUMBER_LENGTH)),
        patient_id=command.patient_id,
        partner_id=command.partner_id,
        practitioner_id=caller.subject,
        centre_id=centre_id,
        department_id=department_id,
        appointment_id=command.appointment_id,
        encounter_id=command.encounter_id,
        referral_id=command.referral_id,
        priority=command.priority,
        tests=command.tests,
        clinical_note=command.clinical_note,
        placed_at=tx.now,
    )
    await store.add_order(tx, order)
    tx.emit(order_placed(order))
    _audit(tx, Action.CREATE, order)
    if await order_store.find_destination(tx, order.partner_id) is not None:
        await order_store.add(
            tx, lab_order_id=order.lab_order_id, partner_id=order.partner_id, action=Told.NEW
        )
    await worklist.match_again(tx, [order_key(order.placer_order_number)])
    return order


async def read_order(tx: Transaction, lab_order_id: UUID, *, caller: Principal) -> LabOrder:
    """Return an order the caller may see. Raises ConcealedError."""
    found = await store.find_order(tx, lab_order_id)
    order, decision = await reading.permit_order(tx, found, caller=caller)
    _audit(tx, Action.READ, order, why=decision)
    return order


async def cancel_order(tx: Transaction, lab_order_id: UUID, reason: str, *, caller: Principal) -> LabOrder:
    """Cancel an order that has no results yet, and tell the laboratory, if it was told of the order.

    Raises NotFoundError, OrderNotCancellableError.
    """
    order = _seen(await store.find_order(tx, lab_order_id, lock=True), caller)
    if order.status is not OrderStatus.PLACED:
        raise OrderNotCancellableError(order_status=order.status.value)
    cancelled = replace(
        order,
        version=order.version + 1,
        status=OrderStatus.CANCELLED,
        cancelled_at=tx.now,
        cancelled_by=caller.subject,
        cancellation_reason=reason,
    )
    await store.save_cancellation(tx, cancelled)
    tx.emit(order_cancelled(cancelled))
    _audit(tx, Action.UPDATE, cancelled)
    told = (await order_store.of_orders(tx, [lab_order_id])).get(lab_order_id, [])
    if told and not await order_store.withdraw_unsent(tx, lab_order_id):
        await order_store.add(tx, lab_order_id=lab_order_id, partner_id=order.partner_id, action=Told.CANCEL)
    return cancelled


async def send_again(tx: Transaction, lab_order_id: UUID, *, caller: Principal) -> LabOrder:
    """Send what the laboratory has refused once more, as it is configured now."""
    order = _seen(await store.find_order(tx, lab_order_id, lock=True), caller)
    if not await order_store.send_again(tx, lab_order_id):
        raise NothingRefusedError
    _audit(tx, Action.UPDATE, order)
    return order


def _seen(order: LabOrder | None, caller: Principal) -> LabOrder:
    if order is None:
        raise NotFoundError
    if not caller.works_in(centre_id=order.centre_id, department_id=order.department_id):
        raise ConcealedError
    return order


async def set_destination(
    tx: Transaction, destination: Destination, *, expected_version: int | None
) -> Destination:
    """Say where a laboratory takes orders. It holds for orders that are placed from now on, and their retries."""
    if await store.find_partner(tx, destination.partner_id, lock=True) is None:
        raise ReferenceNotYetKnownError("The laboratory is not known here yet.", reference="partner_id")
    known = await order_store.find_destination(tx, destination.partner_id, lock=True)
    version = known.version if known else 0
    tx.require_version(version, expected_version)
    changed = replace(destination, version=version + 1)
    await order_store.save_destination(tx, changed)
    tx.audit(
        AuditEntry(
            action=Action.UPDATE, resource_type="LabOrderDestination", resource_id=destination.partner_id
        )
    )
    return changed


async def list_orders(
    tx: Transaction, *, caller: Principal, patient_id: UUID | None, after: UUID | None, limit: int
) -> list[LabOrder]:
    """Return what the caller may see; of a patient, the orders of all records that are the person's."""
    person = await merges.records_of(tx, patient_id) if patient_id is not None else ()
    visible = reading.visible_orders(tx, caller=caller, person=person)
    found = await store.list_orders(tx, person=person, visible=visible, after=after, limit=limit)
    for order in found:
        _audit(tx, Action.READ, order)
    return found


async def _check_references(tx: Transaction, command: PlaceOrder) -> None:
    if not await store.is_patient_known(tx, command.patient_id):
        raise ReferenceNotYetKnownError("The patient is not known here yet.", reference="patient_id")
    partner = await store.find_partner(tx, command.partner_id)
    if partner is None:
        raise ReferenceNotYetKnownError("The laboratory is not known here yet.", reference="partner_id")
    if not (partner.active and partner.enabled):
        raise InvalidRequestError("The laboratory is switched off.")


async def _place(tx: Transaction, command: PlaceOrder, caller: Principal) -> tuple[UUID, UUID]:
    """The department that orders: as told, else the visit's, else the only one where the caller works."""
    department_id = command.department_id
    if command.appointment_id is not None:
        visit = await store.find_appointment(tx, command.appointment_id)
        if visit is None:
            raise ReferenceNotYetKnownError(
                "The appointment is not known here yet.", reference="appointment_id"
            )
        if not await merges.are_one_person(tx, visit.patient_id, command.patient_id):
            raise InvalidRequestError("The appointment is another patient's.")
        department_id = department_id or visit.department_id
    if department_id is None and len(caller.department_ids) == 1:
        (department_id,) = caller.department_ids
    if department_id is None:
        raise InvalidRequestError("Say which department orders: department_id.")
    department = await store.find_department(tx, department_id)
    if department is None:
        raise ReferenceNotYetKnownError("The department is not known here yet.", reference="department_id")
    return department.centre_id, department_id


def _audit(tx: Transaction, action: Action, order: LabOrder, *, why: Decision | None = None) -> None:
    tx.audit(
        AuditEntry(
            action=action,
            resource_type="ServiceRequest",
            resource_id=order.lab_order_id,
            patient_id=order.patient_id,
            details=why.explained() if why else {},
        )
    )
