"""HTTP in: where members of staff are reached when a result waits for their answer."""

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.errors import PreconditionFailedError
from clinic_shared.routing import ClinicRouter, IfMatch, Tx
from pydantic import BaseModel, ConfigDict, Field

from clinic_notifications import staff_store
from clinic_notifications.domain import DEFAULT_CHANNELS, Channel
from clinic_notifications.models import Language, Request
from clinic_notifications.staff_store import StaffContact

router = ClinicRouter(tags=["notifications"])

MANAGE = "staff.manage"


class StaffContactRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"phone": "+70000000101", "channels": ["sms", "email"]}]}
    )

    phone: Annotated[str | None, Field(pattern=r"^\+[1-9][0-9]{6,14}$", description="E.164")] = None
    email: Annotated[str | None, Field(pattern=r"^[^@\s]+@[^@\s]+$", max_length=254)] = None
    language: Language | None = None
    channels: Annotated[
        Sequence[Channel], Field(max_length=3, description="In this order; none: no messages")
    ] = DEFAULT_CHANNELS


class StaffContactResponse(BaseModel):
    staff_id: UUID
    version: Annotated[int, Field(description="0: nobody has said how they are reached")]
    phone: str | None
    email: str | None
    language: str | None
    channels: list[Channel]


@router.get("/v1/messages/staff-contacts/{staff_id}", permission=MANAGE, operation_id="getStaffContact")
async def get_staff_contact(tx: Tx, staff_id: UUID) -> StaffContactResponse:
    """Return where a member of staff is written to."""
    _audit(tx, Action.READ, staff_id)
    return StaffContactResponse.model_validate(vars(await staff_store.find(tx, staff_id)))


@router.put("/v1/messages/staff-contacts/{staff_id}", permission=MANAGE, operation_id="setStaffContact")
async def set_staff_contact(
    tx: Tx, staff_id: UUID, body: StaffContactRequest, expected: IfMatch
) -> StaffContactResponse:
    """Say where a member of staff is written to. It counts for everything that isn't sent yet."""
    current = await staff_store.find(tx, staff_id, lock=True)
    tx.require_version(current.version, expected)
    values = {**dict(body), "channels": tuple(dict.fromkeys(body.channels))}
    changed = StaffContact(staff_id=staff_id, version=current.version + 1, **values)
    if not await staff_store.save(tx, changed):
        raise PreconditionFailedError
    _audit(tx, Action.UPDATE, staff_id)
    return StaffContactResponse.model_validate(vars(changed))


def _audit(tx: Tx, action: Action, staff_id: UUID) -> None:
    tx.audit(AuditEntry(action=action, resource_type="StaffContact", resource_id=staff_id))
