"""What clients of scheduling send and get. Requests refuse fields they don't know."""

from datetime import date, datetime, time, timedelta
from typing import Annotated, Literal
from uuid import UUID

from clinic_shared.errors import RuleError
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, WithJsonSchema

from clinic_scheduling import booking, catalogue
from clinic_scheduling.domain import (
    Appointment,
    AppointmentStatus,
    CatalogueService,
    Resource,
    ResourceKind,
    WeeklyHours,
)

Code = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9-]*$")]
Label = Annotated[str, Field(min_length=1, max_length=200)]


def _without_zone(value: time) -> time:
    if value.tzinfo is not None:
        raise RuleError("the centre's own wall-clock time, without an offset")
    return value


# JSON Schema's format `time` is RFC 3339's, which demands an offset.
LocalTime = Annotated[
    time,
    AfterValidator(_without_zone),
    WithJsonSchema({"type": "string", "pattern": r"^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,6})?)?$"}),
]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ServiceRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "code": "dermatology-consultation",
                    "name": "Test consultation",
                    "duration_seconds": 1800,
                    "department_ids": ["01900000-0000-7000-8000-de0000000001"],
                    "needs": ["practitioner", "room"],
                }
            ]
        }
    )

    code: Code
    name: Label
    duration_seconds: Annotated[int, Field(ge=300, le=86_400)]
    department_ids: Annotated[list[UUID], Field(min_length=1, max_length=200)]
    needs: list[ResourceKind] = [ResourceKind.PRACTITIONER]
    online_bookable: bool = True

    def command(self) -> catalogue.DefineService:
        return catalogue.DefineService(
            code=self.code,
            name=self.name,
            duration=timedelta(seconds=self.duration_seconds),
            department_ids=tuple(self.department_ids),
            needs=tuple(dict.fromkeys(self.needs)),
            online_bookable=self.online_bookable,
        )


class ServiceResponse(BaseModel):
    service_id: UUID
    version: int
    code: str
    name: str
    status: Literal["active", "withdrawn"]
    duration_seconds: int
    department_ids: list[UUID]
    needs: list[ResourceKind]
    online_bookable: bool

    @classmethod
    def of(cls, service: CatalogueService) -> "ServiceResponse":
        return cls(
            service_id=service.service_id,
            version=service.version,
            code=service.code,
            name=service.name,
            status="active" if service.active else "withdrawn",
            duration_seconds=int(service.duration.total_seconds()),
            department_ids=list(service.department_ids),
            needs=list(service.needs),
            online_bookable=service.online_bookable,
        )


class ResourceResponse(BaseModel):
    resource_id: UUID
    kind: ResourceKind
    name: str | None
    centre_id: UUID | None
    department_ids: list[UUID]

    @classmethod
    def of(cls, resource: Resource) -> "ResourceResponse":
        return cls(
            resource_id=resource.resource_id,
            kind=resource.kind,
            name=resource.name,
            centre_id=resource.centre_id,
            department_ids=list(resource.department_ids),
        )


class RoomRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "Room 1", "centre_id": "01900000-0000-7000-8000-ce0000000001"}]
        }
    )

    kind: Literal[ResourceKind.ROOM, ResourceKind.DEVICE] = ResourceKind.ROOM
    name: Label
    centre_id: UUID
    department_ids: Annotated[list[UUID], Field(max_length=200)] = []


class WeeklyHoursBody(Request):
    weekday: Annotated[int, Field(ge=0, le=6, description="0 is Monday")]
    starts_local: Annotated[LocalTime, Field(description="Wall-clock time of the centre")]
    ends_local: LocalTime
    valid_from: date = date(2000, 1, 1)
    valid_until: Annotated[date | None, Field(description="Exclusive")] = None

    def hours(self) -> WeeklyHours:
        return WeeklyHours(**self.model_dump())


class AvailabilityBody(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "practitioner_id": "01900000-0000-7000-8000-5a0000000001",
                    "centre_id": "01900000-0000-7000-8000-ce0000000001",
                    "weekly": [{"weekday": 1, "starts_local": "09:00", "ends_local": "17:00"}],
                }
            ]
        }
    )

    practitioner_id: UUID
    centre_id: UUID
    weekly: Annotated[list[WeeklyHoursBody], Field(max_length=200)]


class ExceptionRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "practitioner_id": "01900000-0000-7000-8000-5a0000000001",
                    "centre_id": "01900000-0000-7000-8000-ce0000000001",
                    "opens": False,
                    "starts_at": "2026-03-05T09:00:00+03:00",
                    "ends_at": "2026-03-05T13:00:00+03:00",
                    "reason_code": "training",
                }
            ]
        }
    )

    practitioner_id: UUID
    centre_id: UUID
    opens: Annotated[bool, Field(description="true adds hours, false takes them away")]
    starts_at: AwareDatetime
    ends_at: AwareDatetime
    reason_code: Code | None = None


class ExceptionResponse(BaseModel):
    exception_id: UUID


class SlotResponse(BaseModel):
    starts_at: datetime
    ends_at: datetime
    practitioner_id: UUID
    room_id: UUID | None


class BookRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "patient_id": "01900000-0000-7000-8000-a00000000001",
                    "service_id": "01900000-0000-7000-8000-5e0000000001",
                    "centre_id": "01900000-0000-7000-8000-ce0000000001",
                    "department_id": "01900000-0000-7000-8000-de0000000001",
                    "practitioner_id": "01900000-0000-7000-8000-5a0000000001",
                    "room_id": "01900000-0000-7000-8000-b00000000001",
                    "starts_at": "2026-03-03T10:00:00+03:00",
                }
            ]
        }
    )

    patient_id: UUID
    service_id: UUID
    centre_id: UUID
    department_id: UUID
    starts_at: AwareDatetime
    practitioner_id: UUID | None = None
    room_id: UUID | None = None
    device_ids: Annotated[list[UUID], Field(max_length=20)] = []
    referral_id: UUID | None = None
    reason: Annotated[str | None, Field(max_length=1000)] = None
    booked_through: Code = "registry"

    def command(self) -> booking.BookAppointment:
        values = self.model_dump()
        return booking.BookAppointment(**{**values, "device_ids": tuple(self.device_ids)})


class RescheduleRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"starts_at": "2026-03-10T10:00:00+03:00"}]})

    starts_at: AwareDatetime
    practitioner_id: Annotated[UUID | None, Field(description="Absent: the same as before")] = None
    room_id: UUID | None = None


class CancelRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"reason_code": "patient"}]})

    reason_code: Code = "patient"


class AppointmentResponse(BaseModel):
    appointment_id: UUID
    version: int
    status: AppointmentStatus
    patient_id: UUID
    practitioner_id: UUID | None
    room_id: UUID | None
    device_ids: list[UUID]
    service_id: UUID
    service_code: str
    centre_id: UUID
    department_id: UUID
    starts_at: datetime
    ends_at: datetime
    referral_id: UUID | None
    reason: str | None
    booked_at: datetime
    cancellation_reason_code: str | None

    @classmethod
    def of(cls, appointment: Appointment) -> "AppointmentResponse":
        return cls(
            appointment_id=appointment.appointment_id,
            version=appointment.version,
            status=appointment.status,
            patient_id=appointment.patient_id,
            practitioner_id=appointment.practitioner_id,
            room_id=appointment.room_id,
            device_ids=list(appointment.device_ids),
            service_id=appointment.service_id,
            service_code=appointment.service_code,
            centre_id=appointment.centre_id,
            department_id=appointment.department_id,
            starts_at=appointment.time.starts_at,
            ends_at=appointment.time.ends_at,
            referral_id=appointment.referral_id,
            reason=appointment.reason,
            booked_at=appointment.booked_at,
            cancellation_reason_code=appointment.cancellation_reason_code,
        )
