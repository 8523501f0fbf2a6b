"""What the clinic offers, and the rooms and devices it offers it with."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import DomainError, NotFoundError
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.problems import constraint_of
from sqlalchemy.exc import IntegrityError

from clinic_scheduling import store, tables
from clinic_scheduling.domain import CatalogueService, Resource, ResourceId, ResourceKind, ServiceId
from clinic_scheduling.events import service_event


class ServiceCodeTakenError(DomainError):
    """A code stands for one service of the catalogue, even after that is withdrawn."""

    slug = "service-code-taken"
    title = "Another service has this code"
    fix = "Choose another code, or use the service that has this one."


@dataclass(frozen=True, kw_only=True)
class DefineService:
    code: str
    name: str
    duration: timedelta
    department_ids: tuple[UUID, ...]
    needs: tuple[ResourceKind, ...]
    online_bookable: bool


async def define_service(tx: Transaction, command: DefineService) -> CatalogueService:
    service = CatalogueService(
        service_id=ServiceId(uuid7()),
        version=1,
        code=command.code,
        name=command.name,
        duration=command.duration,
        department_ids=command.department_ids,
        needs=command.needs,
        online_bookable=command.online_bookable,
        active=True,
        defined_at=tx.now,
    )
    try:
        await store.add_service(tx, service)
    except IntegrityError as error:
        if constraint_of(error) == tables.SERVICE_CODE_ONCE:
            raise ServiceCodeTakenError(code=command.code) from error
        raise
    _record(tx, "service-defined", service, Action.CREATE)
    return service


async def change_service(
    tx: Transaction, service_id: UUID, command: DefineService, *, expected_version: int | None
) -> CatalogueService:
    """Change everything but the code: prices and reports know the service by it."""
    old = await _lock(tx, service_id, expected_version)
    changed = replace(
        old,
        version=old.version + 1,
        name=command.name,
        duration=command.duration,
        department_ids=command.department_ids,
        needs=command.needs,
        online_bookable=command.online_bookable,
    )
    await store.save_service(tx, changed)
    _record(tx, "service-changed", changed, Action.UPDATE, changed_at=tx.now)
    return changed


async def withdraw_service(
    tx: Transaction, service_id: UUID, *, expected_version: int | None
) -> CatalogueService:
    """Stop offering a service; what is booked stays booked."""
    old = await _lock(tx, service_id, expected_version)
    withdrawn = replace(old, version=old.version + 1, active=False)
    await store.save_service(tx, withdrawn)
    _record(tx, "service-withdrawn", withdrawn, Action.UPDATE, withdrawn_at=tx.now)
    return withdrawn


async def add_room_or_device(
    tx: Transaction,
    *,
    kind: ResourceKind,
    name: str,
    centre_id: UUID,
    department_ids: tuple[UUID, ...],
    caller: Principal,
) -> Resource:
    caller.require_place(centre_id=centre_id)
    resource = Resource(
        resource_id=ResourceId(uuid7()),
        kind=kind,
        name=name,
        centre_id=centre_id,
        department_ids=department_ids,
        active=True,
    )
    await store.add_resource(tx, resource)
    tx.audit(AuditEntry(action=Action.CREATE, resource_type="Location", resource_id=resource.resource_id))
    return resource


async def _lock(tx: Transaction, service_id: UUID, expected_version: int | None) -> CatalogueService:
    service = await store.lock_service(tx, service_id)
    if service is None:
        raise NotFoundError
    tx.require_version(service.version, expected_version)
    return service


def _record(
    tx: Transaction, event_name: str, service: CatalogueService, action: Action, **stamps: datetime
) -> None:
    tx.emit(service_event(event_name, service, **stamps))
    tx.audit(AuditEntry(action=action, resource_type="HealthcareService", resource_id=service.service_id))
