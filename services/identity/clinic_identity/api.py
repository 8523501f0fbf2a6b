"""HTTP in: centres, departments, staff and roles."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from clinic_shared.errors import NotFoundError
from clinic_shared.routing import (
    Caller,
    ClinicRouter,
    CurrentRuntime,
    Idempotency,
    IfMatch,
    Page,
    PageQuery,
    RequiredIfMatch,
    Tx,
    page_of,
)
from fastapi import Depends
from pydantic import BaseModel, ConfigDict, Field, model_validator

from clinic_identity import organisation, staff, store
from clinic_identity.desk import Desk
from clinic_identity.domain import Centre, Department, Role, StaffMember
from clinic_identity.fields import Code, Currency, Label, Language, Login, Phone, Request, TimeZone

router = ClinicRouter(tags=["identity"])


async def _desk(runtime: CurrentRuntime) -> Desk:
    return runtime.get(Desk)


CurrentDesk = Annotated[Desk, Depends(_desk)]

# -- centres


class NewLegalEntity(Request):
    name: Label


class CentreDescription(Request):
    name: Label
    currency: Currency
    time_zone: TimeZone
    language: Annotated[Language, Field(description="Used where a patient's language is unknown")]
    address: Annotated[str | None, Field(max_length=500)] = None
    phone: Phone | None = None

    def description(self) -> organisation.DescribeCentre:
        return organisation.DescribeCentre(
            name=self.name,
            currency=self.currency,
            time_zone=self.time_zone,
            language=self.language,
            address=self.address,
            phone=self.phone,
        )


class CentreRequest(CentreDescription):
    """Give the legal entity by id, or a new one by name."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "code": "test-centre",
                    "name": "Test centre",
                    "legal_entity": {"name": "Test Clinic Ltd"},
                    "currency": "RUB",
                    "time_zone": "Europe/Moscow",
                    "language": "ru",
                    "address": "1 Example Street, Testograd",
                    "phone": "+70000000100",
                }
            ]
        },
    )

    code: Code
    legal_entity_id: UUID | None = None
    legal_entity: NewLegalEntity | None = None

    @model_validator(mode="after")
    def _one_legal_entity(self) -> Self:
        if (self.legal_entity_id is None) == (self.legal_entity is None):
            raise ValueError("give legal_entity_id or legal_entity")
        return self

    def choice(self) -> organisation.LegalEntityChoice:
        name = self.legal_entity.name if self.legal_entity else None
        return organisation.LegalEntityChoice(legal_entity_id=self.legal_entity_id, new_name=name)


class CentreResponse(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    centre_id: UUID
    version: int
    code: str
    name: str
    legal_entity_id: UUID
    legal_entity_name: str
    currency: str
    time_zone: str
    language: str
    address: str | None
    phone: str | None
    status: Literal["active", "closed"]
    opened_at: datetime

    @classmethod
    def of(cls, centre: Centre) -> Self:
        return cls.model_validate(centre)


@router.post("/v1/centres", permission="organisation.manage", status_code=201, operation_id="openCentre")
async def open_centre(tx: Tx, caller: Caller, body: CentreRequest) -> CentreResponse:
    """Open a centre of a legal entity. Its code never changes."""
    centre = await organisation.open_centre(
        tx, body.code, body.description(), legal_entity=body.choice(), caller=caller
    )
    return CentreResponse.of(centre)


@router.get("/v1/centres", permission="organisation.read", operation_id="listCentres")
async def list_centres(tx: Tx, page: PageQuery) -> Page[CentreResponse]:
    """List all centres."""
    found = await store.list_centres(tx, after=page.after, limit=page.limit + 1)
    return page_of([CentreResponse.of(c) for c in found], page, key=lambda c: c.centre_id)


@router.get("/v1/centres/{centre_id}", permission="organisation.read", operation_id="getCentre")
async def get_centre(tx: Tx, centre_id: UUID) -> CentreResponse:
    """Return one centre; the ETag is its version."""
    centre = await store.find_centre(tx, centre_id)
    if centre is None:
        raise NotFoundError
    return CentreResponse.of(centre)


@router.put("/v1/centres/{centre_id}", permission="organisation.manage", operation_id="changeCentre")
async def change_centre(
    tx: Tx, caller: Caller, centre_id: UUID, body: CentreDescription, expected: RequiredIfMatch
) -> CentreResponse:
    """Change everything but the code and the legal entity."""
    changed = await organisation.change_centre(
        tx, centre_id, body.description(), expected_version=expected, caller=caller
    )
    return CentreResponse.of(changed)


# -- departments


class DepartmentDescription(Request):
    name: Label
    specialty: Code | None = None


class DepartmentRequest(DepartmentDescription):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "centre_id": "01900000-0000-7000-8000-ce0000000001",
                    "code": "dermatology",
                    "name": "Dermatology",
                    "specialty": "dermatology",
                }
            ]
        },
    )

    centre_id: UUID
    code: Code


class DepartmentResponse(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    department_id: UUID
    version: int
    centre_id: UUID
    code: str
    name: str
    specialty: str | None
    status: Literal["active", "closed"]
    opened_at: datetime
    closed_at: datetime | None

    @classmethod
    def of(cls, department: Department) -> Self:
        return cls.model_validate(department)


@router.post(
    "/v1/departments", permission="organisation.manage", status_code=201, operation_id="openDepartment"
)
async def open_department(tx: Tx, caller: Caller, body: DepartmentRequest) -> DepartmentResponse:
    """Open a department of a centre. Its code is unique there and never changes."""
    return DepartmentResponse.of(await organisation.open_department(tx, **body.model_dump(), caller=caller))


@router.get("/v1/departments", permission="organisation.read", operation_id="listDepartments")
async def list_departments(
    tx: Tx, page: PageQuery, centre_id: UUID | None = None
) -> Page[DepartmentResponse]:
    """List departments of one centre or all, closed ones included."""
    found = await store.list_departments(tx, centre_id=centre_id, after=page.after, limit=page.limit + 1)
    return page_of([DepartmentResponse.of(d) for d in found], page, key=lambda d: d.department_id)


@router.get("/v1/departments/{department_id}", permission="organisation.read", operation_id="getDepartment")
async def get_department(tx: Tx, department_id: UUID) -> DepartmentResponse:
    """Return one department; the ETag is its version."""
    department = await store.find_department(tx, department_id)
    if department is None:
        raise NotFoundError
    return DepartmentResponse.of(department)


@router.put(
    "/v1/departments/{department_id}", permission="organisation.manage", operation_id="changeDepartment"
)
async def change_department(
    tx: Tx, caller: Caller, department_id: UUID, body: DepartmentDescription, expected: RequiredIfMatch
) -> DepartmentResponse:
    """Change a department's name and specialty."""
    changed = await organisation.change_department(
        tx, department_id, **body.model_dump(), expected_version=expected, caller=caller
    )
    return DepartmentResponse.of(changed)


@router.post(
    "/v1/departments/{department_id}/close",
    permission="organisation.manage",
    operation_id="closeDepartment",
)
async def close_department(
    tx: Tx, caller: Caller, department_id: UUID, expected: IfMatch
) -> DepartmentResponse:
    """Close a department for good; what is booked stays for people to move."""
    closed = await organisation.close_department(tx, department_id, expected_version=expected, caller=caller)
    return DepartmentResponse.of(closed)


# -- staff


class PositionRequest(Request):
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


@router.post("/v1/staff/{staff_id}/move", permission="staff.manage", operation_id="moveStaffMember")
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
    operation_id="renewStaffPassword",
)
async def renew_staff_password(tx: Tx, desk: CurrentDesk, caller: Caller, staff_id: UUID) -> InitialPassword:
    """Replace a forgotten password by an initial one. All their sessions end."""
    invitation = await staff.renew_staff_password(tx, desk, staff_id, caller=caller)
    return InitialPassword(
        initial_password=invitation.initial_password,
        initial_password_expires_at=invitation.account.password_expires_at,
    )


async def _staff_response(tx: Tx, member: StaffMember) -> StaffResponse:
    logins = await store.logins_of(tx, [member.staff_id])
    return StaffResponse.of(member, login=logins.get(member.staff_id))


# -- roles


class RoleResponse(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    code: str
    title: str
    principal: Literal["staff", "patient", "client"]
    scopes: list[str]

    @classmethod
    def of(cls, role: Role) -> Self:
        return cls.model_validate(role)


@router.get("/v1/roles", permission="organisation.read", operation_id="listRoles")
async def list_roles(tx: Tx) -> list[RoleResponse]:
    """List all roles and what each may do."""
    return [RoleResponse.of(role) for role in await store.list_roles(tx)]
