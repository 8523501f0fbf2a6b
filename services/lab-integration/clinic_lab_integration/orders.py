"""Orders to laboratories: each has a number of ours, which the laboratory echoes with its results."""

import secrets
from dataclasses import dataclass
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import (
    ConcealedError,
    InvalidRequestError,
    NotFoundError,
    ReferenceNotYetKnownError,
)
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal

from clinic_lab_integration import store, worklist
from clinic_lab_integration.domain import LabOrderId, OrderedTest, OrderStatus
from clinic_lab_integration.events import order_placed
from clinic_lab_integration.matching import order_key
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
    """Give the order its number and say that it is placed. Results that came before it find it now."""
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
    await worklist.match_again(tx, [order_key(order.placer_order_number)])
    return order


async def read_order(tx: Transaction, lab_order_id: UUID, *, caller: Principal) -> LabOrder:
    """Return an order the caller may see. Raises NotFoundError."""
    order = await store.find_order(tx, lab_order_id)
    if order is None:
        raise NotFoundError
    if not caller.works_in(centre_id=order.centre_id, department_id=order.department_id):
        raise ConcealedError
    _audit(tx, Action.READ, order)
    return order


async def list_orders(
    tx: Transaction, *, caller: Principal, patient_id: UUID | None, after: UUID | None, limit: int
) -> list[LabOrder]:
    within = None if caller.network else (caller.centre_ids, caller.department_ids)
    found = await store.list_orders(tx, patient_id=patient_id, within=within, after=after, limit=limit)
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
        if visit.patient_id != command.patient_id:
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


def _audit(tx: Transaction, action: Action, order: LabOrder) -> None:
    tx.audit(
        AuditEntry(
            action=action,
            resource_type="ServiceRequest",
            resource_id=order.lab_order_id,
            patient_id=order.patient_id,
        )
    )
