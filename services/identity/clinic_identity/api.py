"""HTTP in: centres, departments and roles."""

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from clinic_shared.errors import NotFoundError, RuleError
from clinic_shared.routing import (
    Caller,
    ClinicRouter,
    IfMatch,
    Page,
    PageQuery,
    RequiredIfMatch,
    Tx,
    page_of,
)
from pydantic import BaseModel, ConfigDict, Field, model_validator

from clinic_identity import organisation, store
from clinic_identity.domain import Centre, Department, Role
from clinic_identity.fields import Code, Currency, Label, Language, Phone, Request, TimeZone

router = ClinicRouter(tags=["identity"])


# -- centres


class NewLegalEntity(Request):
    name: Label


class CentreDescription(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "Test centre",
                    "currency": "RUB",
                    "time_zone": "Europe/Moscow",
                    "language": "ru",
                    "address": "2 Example Street, Testograd",
                    "phone": "+70000000100",
                }
            ]
        }
    )

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
            raise RuleError("give legal_entity_id or legal_entity")
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
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "Dermatology and cosmetology", "specialty": "dermatology"}]}
    )

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
