"""What people and laboratories see of messages: dispositions, the work-list, incidents, a validation."""

import base64
from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Row

from clinic_lab_integration.inspection import Message, Waiting
from clinic_lab_integration.models import Request
from clinic_lab_integration.unit_store import Unit, UnitReport


class FindingResponse(BaseModel):
    """`code` is of HL7 table 0357."""

    severity: Literal["E", "W"]
    code: int
    location: str
    text: str


class ReportDisposition(BaseModel):
    report_index: int
    disposition: str
    reason: str | None
    result_id: UUID | None
    result_version: int | None
    filed_at: datetime | None

    @classmethod
    def of(cls, report: UnitReport) -> "ReportDisposition":
        return cls(**vars(report))


class UnitResponse(BaseModel):
    """One patient group of a message; exactly one disposition at any time."""

    group_index: int
    disposition: str
    reason: str | None
    patient_id: UUID | None
    decided_by: UUID | None
    decision_reason: str | None
    note: str | None
    reports: list[ReportDisposition]

    @classmethod
    def of(
        cls, unit: Unit, reports: tuple[UnitReport, ...] = (), *, show_patient: bool = True
    ) -> "UnitResponse":
        return cls(
            group_index=unit.group_index,
            disposition=unit.disposition.value,
            reason=unit.reason,
            patient_id=unit.patient_id if show_patient else None,
            decided_by=unit.decided_by,
            decision_reason=unit.decision_reason,
            note=unit.note if show_patient else None,
            reports=[ReportDisposition.of(report) for report in reports],
        )


class MessageResponse(BaseModel):
    """A message that was answered. `answer_code` is MSA-1; null where no answer may be given."""

    message_id: UUID
    partner_id: UUID
    received_at: datetime
    control_id: str
    message_type: str
    version_id: str
    processing_id: str
    charset: str
    content_type: str
    via: str
    answer_code: str | None
    copies: int = Field(description="how often the same bytes came again")
    units: list[UnitResponse]

    @classmethod
    def of(cls, message: Message, **more: Any) -> "MessageResponse":
        note = message.note
        show = more.pop("show_patient", True)
        return cls(
            message_id=message.message_id,
            partner_id=UUID(note.partner_id),
            received_at=message.received_at,
            control_id=note.control_id,
            message_type=note.message_type,
            version_id=note.version_id,
            processing_id=note.processing_id,
            charset=note.charset,
            content_type=message.content_type,
            via=message.via,
            answer_code=note.answer_code,
            copies=message.copies,
            units=[UnitResponse.of(unit, reports, show_patient=show) for unit, reports in message.units],
            **more,
        )


class MessageDetail(MessageResponse):
    """`raw_base64` are the message's own bytes, `before_base64` and `after_base64` what stood around them.

    These three are null without the scope lab-messages.read.
    """

    findings: list[FindingResponse]
    unread_segments: list[str] = Field(description="kept with the message; nothing is taken out of them")
    answer: str | None
    raw_base64: str | None
    before_base64: str | None
    after_base64: str | None

    @classmethod
    def of_message(cls, message: Message) -> "MessageDetail":
        note, raw = message.note, message.raw
        made = cls.of(
            message,
            show_patient=raw is not None,
            findings=[FindingResponse(**vars(f)) for f in note.findings],
            unread_segments=list(note.unread),
            answer=message.answer.decode(note.charset, "replace") if message.answer is not None else None,
            raw_base64=base64.b64encode(raw).decode() if raw is not None else None,
            before_base64=note.before if raw is not None else None,
            after_base64=note.after if raw is not None else None,
        )
        assert isinstance(made, cls)  # noqa: S101  # `of` makes what it is called on
        return made


class WaitingIdentifier(BaseModel):
    authority: str
    value: str
    type: str | None


class WaitingResponse(BaseModel):
    """A patient group that waits for a person, with the patient as the lab wrote them."""

    unit_id: str
    message_id: UUID
    group_index: int
    partner_id: UUID
    control_id: str
    received_at: datetime
    reason: str | None
    note: str | None
    family_name: str
    given_name: str
    middle_name: str
    birth_on: date | None
    sex: str
    identifiers: list[WaitingIdentifier]
    order_numbers: list[str]

    @classmethod
    def of(cls, waiting: Waiting) -> "WaitingResponse":
        unit, patient = waiting.unit, waiting.patient
        return cls(
            unit_id=f"{unit.message_id}.{unit.group_index}",
            message_id=unit.message_id,
            group_index=unit.group_index,
            partner_id=unit.partner_id,
            control_id=waiting.control_id,
            received_at=unit.received_at,
            reason=unit.reason,
            note=unit.note,
            family_name=patient.family_name,
            given_name=patient.given_name,
            middle_name=patient.middle_name,
            birth_on=patient.birth_on,
            sex=patient.sex,
            identifiers=[
                WaitingIdentifier(authority=i.authority, value=i.value, type=i.type_code or None)
                for i in patient.identifiers
            ],
            order_numbers=[o.placer.value for o in patient.orders if o.placer],
        )


class AttachRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"patient_id": "01900000-0000-7000-8000-a00000000001"}]}
    )

    patient_id: UUID


class UnitDiscardRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "Test message of the laboratory"}]})

    reason: str = Field(min_length=3, max_length=500)


class IncidentResponse(BaseModel):
    """Something that should not happen and was not refused."""

    incident_id: UUID
    kind: str
    state: str
    partner_id: UUID
    message_id: UUID
    earlier_message_id: UUID
    owner_id: UUID | None
    raised_at: datetime
    settled_at: datetime | None
    note: str | None

    @classmethod
    def of(cls, row: Row[Any]) -> "IncidentResponse":
        return cls(**row._mapping)  # noqa: SLF001  # public, by its documentation


class SettleRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"note": "The laboratory has sent the same control id twice"}]}
    )

    note: str = Field(min_length=3, max_length=500)
