"""HTTP in: the people who work here."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from clinic_shared.errors import NotFoundError
from clinic_shared.routing import (
    Caller,
    ClinicRouter,
    Idempotency,
    IfMatch,
    Page,
    PageQuery,
    Tx,
    page_of,
)
from clinic_shared.step_up import RECENT_AUTHENTICATION
from pydantic import BaseModel, ConfigDict, Field

from clinic_identity import staff, store
from clinic_identity.domain import StaffMember
from clinic_identity.fields import Code, CurrentDesk, Label, Login, Request
from clinic_identity.link_models import (
    AccessLinkRequest,
    AccessLinkResponse,
    SentLinkResponse,
    wants_message,
)

router = ClinicRouter(tags=["identity"])


class PositionRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "roles": ["doctor"],
                    "centre_ids": ["01900000-0000-7000-8000-ce0000000001"],
                    "department_ids": ["01900000-0000-7000-8000-de0000000001"],
                    "practitioner": True,
                    "specialty": "dermatology",
                }
            ]
        }
    )

    roles: Annotated[list[Code], Field(min_length=1, max_length=20)]
    network: Annotated[bool, Field(description="Works in every centre")] = False
    centre_ids: Annotated[tuple[UUID, ...], Field(max_length=100)] = ()
    department_ids: Annotated[tuple[UUID, ...], Field(max_length=100)] = ()
    practitioner: Annotated[bool, Field(description="Sees patients, so has a calendar")] = False
    specialty: Code | None = None

    def position(self) -> staff.Position:
        return staff.Position(
            roles=tuple(dict.fromkeys(self.roles)),
            network=self.network,
            centre_ids=tuple(dict.fromkeys(self.centre_ids)),
            department_ids=tuple(dict.fromkeys(self.department_ids)),
            practitioner=self.practitioner,
            specialty=self.specialty,
        )


class PersonNameBody(Request):
    family: Label
    given: Label | None = None
    patronymic: Label | None = None

    def name(self) -> staff.PersonName:
        return staff.PersonName(family=self.family, given=self.given, patronymic=self.patronymic)


class StaffRequest(PositionRequest):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": {"family": "Vracheva", "given": "Testina"},
                    "login": "testina.vracheva@example.org",
                    "roles": ["doctor"],
                    "centre_ids": ["01900000-0000-7000-8000-ce0000000001"],
                    "department_ids": ["01900000-0000-7000-8000-de0000000001"],
                    "practitioner": True,
                    "specialty": "dermatology",
                }
            ]
        },
    )

    name: PersonNameBody
    login: Annotated[Login, Field(description="E-mail address")]


class StaffResponse(BaseModel):
    staff_id: UUID
    version: int
    name: PersonNameBody
    login: str | None
    roles: list[str]
    network: bool
    centre_ids: list[UUID]
    department_ids: list[UUID]
    practitioner: bool
    specialty: str | None
    active: bool
    added_at: datetime

    @classmethod
    def of(cls, member: StaffMember, *, login: str | None, **more: Any) -> Self:
        name = PersonNameBody(family=member.family, given=member.given, patronymic=member.patronymic)
        return cls(
            staff_id=member.staff_id,
            version=member.version,
            name=name,
            login=login,
            roles=list(member.roles),
            network=member.network,
            centre_ids=list(member.centre_ids),
            department_ids=list(member.department_ids),
            practitioner=member.practitioner,
            specialty=member.specialty,
            active=member.active,
            added_at=member.added_at,
            **more,
        )


class InitialPassword(BaseModel):
    initial_password: Annotated[str, Field(description="Shown this once")]
    initial_password_expires_at: datetime | None


class NewStaffResponse(StaffResponse, InitialPassword):
    """A member of staff with the password to hand over."""


# Answers with a password are never kept for repeats: the unique login catches a repeat.
@router.post(
    "/v1/staff",
    permission="staff.manage",
    idempotency=Idempotency.NONE,
    status_code=201,
    dependencies=RECENT_AUTHENTICATION,
    operation_id="addStaffMember",
)
async def add_staff_member(tx: Tx, desk: CurrentDesk, caller: Caller, body: StaffRequest) -> NewStaffResponse:
    """Add a member of staff. Hand over the initial password: it is shown once and works for 72 hours."""
    member, invitation = await staff.add_staff_member(
        tx, desk, name=body.name.name(), login=body.login, position=body.position(), caller=caller
    )
    return NewStaffResponse.of(
        member,
        login=invitation.account.login,
        initial_password=invitation.initial_password,
        initial_password_expires_at=invitation.account.password_expires_at,
    )


@router.get("/v1/staff", permission="staff.read", operation_id="listStaff")
async def list_staff(
    tx: Tx, page: PageQuery, centre_id: UUID | None = None, department_id: UUID | None = None
) -> Page[StaffResponse]:
    """List staff, also of one centre or department; those who left are included."""
    found = await store.list_staff(
        tx, centre_id=centre_id, department_id=department_id, after=page.after, limit=page.limit + 1
    )
    logins = await store.logins_of(tx, [member.staff_id for member in found])
    shown = [StaffResponse.of(member, login=logins.get(member.staff_id)) for member in found]
    return page_of(shown, page, key=lambda member: member.staff_id)


@router.get("/v1/staff/{staff_id}", permission="staff.read", operation_id="getStaffMember")
async def get_staff_member(tx: Tx, staff_id: UUID) -> StaffResponse:
    """Return one member of staff; the ETag is their version."""
    member = await store.find_staff(tx, staff_id)
    if member is None:
        raise NotFoundError
    return await _staff_response(tx, member)


@router.post(
    "/v1/staff/{staff_id}/move",
    permission="staff.manage",
    dependencies=RECENT_AUTHENTICATION,
    operation_id="moveStaffMember",
)
async def move_staff_member(
    tx: Tx, caller: Caller, staff_id: UUID, body: PositionRequest, expected: IfMatch
) -> StaffResponse:
    """Give other roles, centres or departments. Sessions go on with the new rights after a refresh."""
    moved = await staff.move_staff_member(
        tx, staff_id, body.position(), expected_version=expected, caller=caller
    )
    return await _staff_response(tx, moved)


@router.post(
    "/v1/staff/{staff_id}/deactivate", permission="staff.manage", operation_id="deactivateStaffMember"
)
async def deactivate_staff_member(tx: Tx, caller: Caller, staff_id: UUID, expected: IfMatch) -> StaffResponse:
    """Somebody left: their sessions end now, for good."""
    gone = await staff.deactivate_staff_member(tx, staff_id, expected_version=expected, caller=caller)
    return await _staff_response(tx, gone)


@router.post(
    "/v1/staff/{staff_id}/initial-password",
    permission="staff.manage",
    idempotency=Idempotency.NONE,
    dependencies=RECENT_AUTHENTICATION,
    operation_id="renewStaffPassword",
)
async def renew_staff_password(tx: Tx, desk: CurrentDesk, caller: Caller, staff_id: UUID) -> InitialPassword:
    """Replace a forgotten password by an initial one. All their sessions end."""
    invitation = await staff.renew_staff_password(tx, desk, staff_id, caller=caller)
    return InitialPassword(
        initial_password=invitation.initial_password,
        initial_password_expires_at=invitation.account.password_expires_at,
    )


@router.post(
    "/v1/staff/{staff_id}/access-link",
    permission="staff.manage",
    idempotency=Idempotency.NONE,
    dependencies=RECENT_AUTHENTICATION,
    operation_id="makeStaffAccessLink",
)
async def make_staff_access_link(
    tx: Tx, desk: CurrentDesk, caller: Caller, staff_id: UUID, body: AccessLinkRequest | None = None
) -> AccessLinkResponse:
    """Make a link with which somebody chooses their password, or have it sent. Earlier ones stop working."""
    send = wants_message(body)
    return AccessLinkResponse.of(await staff.link_for_staff(tx, desk, staff_id, send=send, caller=caller))


@router.get("/v1/staff/{staff_id}/access-link", permission="staff.manage", operation_id="getStaffAccessLink")
async def get_staff_access_link(tx: Tx, caller: Caller, staff_id: UUID) -> SentLinkResponse:
    """Say how far the link got that is being sent to somebody; 404 once it was used or replaced."""
    return SentLinkResponse.model_validate(await staff.sent_link_of_staff(tx, staff_id, caller=caller))


async def _staff_response(tx: Tx, member: StaffMember) -> StaffResponse:
    logins = await store.logins_of(tx, [member.staff_id])
    return StaffResponse.of(member, login=logins.get(member.staff_id))
