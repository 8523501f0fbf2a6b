"""Legal entities, their centres, and the departments of those."""

from collections.abc import Awaitable
from dataclasses import dataclass, replace
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import ForbiddenError, NotFoundError
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.problems import constraint_of
from sqlalchemy.exc import IntegrityError

from clinic_identity import store
from clinic_identity.domain import (
    Centre,
    CentreClosedError,
    CentreId,
    CodeTakenError,
    Department,
    DepartmentClosedError,
    DepartmentId,
    UnknownReferenceError,
)
from clinic_identity.events import centre_event, department_event


@dataclass(frozen=True, kw_only=True)
class LegalEntityChoice:
    """An existing legal entity by id, or a new one by name."""

    legal_entity_id: UUID | None
    new_name: str | None


@dataclass(frozen=True, kw_only=True)
class DescribeCentre:
    name: str
    currency: str
    time_zone: str
    language: str
    address: str | None
    phone: str | None


async def open_centre(
    tx: Transaction,
    code: str,
    described: DescribeCentre,
    *,
    legal_entity: LegalEntityChoice,
    caller: Principal,
) -> Centre:
    _require_network(caller)
    legal_entity_id, legal_entity_name = await _legal_entity(tx, legal_entity)
    centre = Centre(
        centre_id=CentreId(uuid7()),
        version=1,
        code=code,
        name=described.name,
        legal_entity_id=legal_entity_id,
        legal_entity_name=legal_entity_name,
        currency=described.currency,
        time_zone=described.time_zone,
        language=described.language,
        address=described.address,
        phone=described.phone,
        status="active",
        opened_at=tx.now,
    )
    await _refuse_taken_code(store.add_centre(tx, centre), store.CENTRE_CODE_ONCE, code)
    tx.emit(centre_event("centre-opened", centre))
    _audit(tx, Action.CREATE, "Location", centre.centre_id)
    return centre


async def change_centre(
    tx: Transaction,
    centre_id: UUID,
    described: DescribeCentre,
    *,
    expected_version: int | None,
    caller: Principal,
) -> Centre:
    """Change everything but the code and the legal entity, which invoices already name."""
    caller.require_place(centre_id=centre_id)
    old = await store.lock_centre(tx, centre_id)
    if old is None:
        raise NotFoundError
    tx.require_version(old.version, expected_version)
    changed = replace(
        old,
        version=old.version + 1,
        name=described.name,
        currency=described.currency,
        time_zone=described.time_zone,
        language=described.language,
        address=described.address,
        phone=described.phone,
        changed_at=tx.now,
    )
    await store.save_centre(tx, changed)
    tx.emit(centre_event("centre-changed", changed))
    _audit(tx, Action.UPDATE, "Location", changed.centre_id)
    return changed


async def open_department(
    tx: Transaction,
    *,
    centre_id: UUID,
    code: str,
    name: str,
    specialty: str | None,
    caller: Principal,
) -> Department:
    caller.require_place(centre_id=centre_id)
    # The lock keeps the centre from closing under the new department.
    centre = await store.lock_centre(tx, centre_id)
    if centre is None:
        raise UnknownReferenceError(reference="centre_id")
    if not centre.is_active:
        raise CentreClosedError
    department = Department(
        department_id=DepartmentId(uuid7()),
        version=1,
        centre_id=centre.centre_id,
        code=code,
        name=name,
        specialty=specialty,
        status="active",
        opened_at=tx.now,
    )
    await _refuse_taken_code(store.add_department(tx, department), store.DEPARTMENT_CODE_ONCE, code)
    tx.emit(department_event("department-opened", department))
    _audit(tx, Action.CREATE, "Organization", department.department_id)
    return department


async def change_department(
    tx: Transaction,
    department_id: UUID,
    *,
    name: str,
    specialty: str | None,
    expected_version: int | None,
    caller: Principal,
) -> Department:
    old = await _lock_department(tx, department_id, expected_version, caller)
    changed = replace(old, version=old.version + 1, name=name, specialty=specialty, changed_at=tx.now)
    await _save_department(tx, "department-changed", changed)
    return changed


async def close_department(
    tx: Transaction, department_id: UUID, *, expected_version: int | None, caller: Principal
) -> Department:
    """Take no new patients, appointments or referrals there; what is booked stays for people to move."""
    old = await _lock_department(tx, department_id, expected_version, caller)
    closed = replace(old, version=old.version + 1, status="closed", closed_at=tx.now)
    await _save_department(tx, "department-closed", closed)
    return closed


def _require_network(caller: Principal) -> None:
    if not caller.network:
        raise ForbiddenError("Only those who work in the whole network may open a centre.")


async def _legal_entity(tx: Transaction, choice: LegalEntityChoice) -> tuple[UUID, str]:
    if choice.legal_entity_id is not None:
        name = await store.find_legal_entity_name(tx, choice.legal_entity_id)
        if name is None:
            raise UnknownReferenceError(reference="legal_entity_id")
        return choice.legal_entity_id, name
    new_id, new_name = uuid7(), choice.new_name or ""
    await _refuse_taken_code(
        store.add_legal_entity(tx, new_id, new_name), store.LEGAL_ENTITY_ONCE, "legal_entity"
    )
    _audit(tx, Action.CREATE, "Organization", new_id)
    return new_id, new_name


async def _refuse_taken_code(storing: Awaitable[None], constraint: str, code: str) -> None:
    try:
        await storing
    except IntegrityError as error:
        if constraint_of(error) == constraint:
            raise CodeTakenError(code=code) from error
        raise


async def _lock_department(
    tx: Transaction, department_id: UUID, expected_version: int | None, caller: Principal
) -> Department:
    department = await store.lock_department(tx, department_id)
    if department is None:
        raise NotFoundError
    caller.require_place(centre_id=department.centre_id, department_id=department.department_id)
    tx.require_version(department.version, expected_version)
    if not department.is_active:
        raise DepartmentClosedError
    return department


async def _save_department(tx: Transaction, event_name: str, department: Department) -> None:
    await store.save_department(tx, department)
    tx.emit(department_event(event_name, department))
    _audit(tx, Action.UPDATE, "Organization", department.department_id)


def _audit(tx: Transaction, action: Action, resource_type: str, resource_id: UUID) -> None:
    tx.audit(AuditEntry(action=action, resource_type=resource_type, resource_id=resource_id))
