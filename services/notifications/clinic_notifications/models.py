"""What clients of notifications send and get. Requests refuse fields they don't know."""

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from clinic_shared.errors import RuleError
from pydantic import BaseModel, ConfigDict, Field, model_validator

from clinic_notifications.domain import Channel, Preferences, Purpose
from clinic_notifications.planned import PLANNED, PlannedMessage
from clinic_notifications.reading import AnyMessage
from clinic_notifications.templates import ChangeTemplate
from clinic_notifications.wording import Template

StatusName = Literal["planned", "queued", "sent", "delivered", "read", "failed", "cancelled", "expired"]
Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35)]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SubjectResponse(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    type: str
    id: UUID
    version: int


class MessageResponse(BaseModel):
    message_id: UUID
    version: int
    status: StatusName
    patient_id: Annotated[UUID | None, Field(description="Null for a message to a member of staff")]
    staff_id: UUID | None = None
    purpose: Purpose
    channel: Annotated[Channel | None, Field(description="Null until it is queued")] = None
    language: str | None = None
    centre_id: UUID | None
    department_id: UUID | None
    about_type: str
    about_id: UUID
    about_version: int
    also_about: Annotated[
        list[SubjectResponse], Field(description="Results that were told of in the same message")
    ] = []
    occurrence: Annotated[str, Field(description="Which of several, such as the 24h and the 2h reminder")]
    queued_at: datetime | None = None
    send_at: datetime
    useful_until_at: Annotated[datetime | None, Field(description="Not sent after this")]
    sent_at: Annotated[datetime | None, Field(description="Accepted by the vendor, not yet delivered")] = None
    delivered_at: datetime | None = None
    read_at: datetime | None = None
    failed_at: datetime | None = None
    failure_code: str | None = None
    provider: str | None = None
    text: str | None = None

    @classmethod
    def of(cls, message: AnyMessage) -> "MessageResponse":
        about = {
            "about_type": message.about.type,
            "about_id": message.about.id,
            "about_version": message.about.version,
        }
        if isinstance(message, PlannedMessage):
            planned = {"version": 0, "status": PLANNED, "purpose": Purpose.REMINDER}
            return cls.model_validate({**vars(message), **about, **planned})
        also = [SubjectResponse.model_validate(joined) for joined in message.also_about]
        return cls.model_validate({**vars(message), **about, "also_about": also})


class PreferencesRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"channels": ["sms", "email"], "opted_out": ["invoice"]}]}
    )

    channels: Annotated[list[Channel], Field(max_length=3, description="In this order; none: no messages")]
    opted_out: Annotated[list[Purpose], Field(max_length=20)] = []


class PreferencesResponse(BaseModel):
    patient_id: UUID
    version: Annotated[int, Field(description="0: the patient has made no choice")]
    channels: list[Channel]
    opted_out: list[Purpose]

    @classmethod
    def of(cls, preferences: Preferences) -> "PreferencesResponse":
        return cls(
            patient_id=preferences.patient_id,
            version=preferences.version,
            channels=list(preferences.channels),
            opted_out=list(preferences.opted_out),
        )


class TemplateRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "code": "appointment-reminder",
                    "language": "en",
                    "channel": "sms",
                    "body": "See you at {{ time }} on {{ date }}: {{ department }}, {{ address }}.",
                }
            ]
        }
    )

    code: Purpose
    language: Language
    channel: Channel
    department_id: Annotated[UUID | None, Field(description="Null: the whole network's")] = None
    subject: Annotated[str | None, Field(min_length=1, max_length=200, description="Of an e-mail")] = None
    body: Annotated[str, Field(min_length=1, max_length=1024)]
    vendor_name: Annotated[
        str | None,
        Field(pattern=r"^[a-z0-9_]{1,512}$", description="The name under which WhatsApp approved the text"),
    ] = None

    @model_validator(mode="after")
    def _fits_the_channel(self) -> Self:
        if (self.subject is not None) != (self.channel is Channel.EMAIL):
            raise RuleError("an e-mail, and nothing else, has a subject")
        if (self.vendor_name is not None) != (self.channel is Channel.WHATSAPP):
            raise RuleError("a WhatsApp template, and nothing else, has a vendor_name")
        return self

    def command(self) -> ChangeTemplate:
        return ChangeTemplate(**dict(self))


class TemplateResponse(BaseModel):
    template_id: UUID
    code: Purpose
    language: str
    channel: Channel
    department_id: UUID | None
    version: int
    subject: str | None
    body: str
    vendor_name: str | None
    changed_at: datetime

    @classmethod
    def of(cls, template: Template) -> "TemplateResponse":
        return cls.model_validate(vars(template))
