"""What clients of the chart send and get. Requests refuse fields they don't know."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from clinic_patients.chart import IssuePrescription, RecordEncounter, StateConsent
from clinic_patients.chart_domain import (
    ICD_10,
    Consent,
    ConsentStatus,
    Diagnosis,
    DiagnosisRank,
    Encounter,
    EntryKind,
    Observation,
    PrescribedItem,
    Prescription,
    ResultVersion,
    TimelineEntry,
)
from clinic_patients.models import Label, Request

Code = Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Text = Annotated[str, Field(min_length=1, max_length=65_536)]
# A letter, two characters, and up to four behind a dot; dagger and asterisk mark a pair of codes.
Icd10 = Annotated[str, Field(pattern=r"^[A-Z][0-9][0-9A-Z](\.[0-9A-Z]{1,4})?[+*]?$")]


class DiagnosisBody(Request):
    code: Annotated[Icd10, Field(description="ICD-10")]
    display: Label | None = None
    rank: DiagnosisRank = DiagnosisRank.SECONDARY


class EncounterRequest(Request):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "department_id": "01900000-0000-7000-8000-de0000000001",
                    "started_at": "2026-03-03T07:00:00Z",
                    "ended_at": "2026-03-03T07:25:00Z",
                    "summary": "Вымышленная запись",
                    "diagnoses": [{"code": "L20.9", "rank": "primary"}],
                }
            ]
        },
    )

    department_id: UUID
    started_at: AwareDatetime
    ended_at: Annotated[AwareDatetime | None, Field(description="Absent: the visit goes on")] = None
    appointment_id: UUID | None = None
    referral_id: Annotated[UUID | None, Field(description="The referral that this visit answers")] = None
    summary: Text | None = None
    recommendations: Text | None = None
    diagnoses: list[DiagnosisBody] = Field(default=[], max_length=50)

    def command(self) -> RecordEncounter:
        return RecordEncounter(
            department_id=self.department_id,
            started_at=self.started_at,
            ended_at=self.ended_at,
            appointment_id=self.appointment_id,
            referral_id=self.referral_id,
            summary=self.summary,
            recommendations=self.recommendations,
            diagnoses=tuple(Diagnosis(**d.model_dump()) for d in self.diagnoses),
        )


class DiagnosisResponse(BaseModel):
    code: str
    system: str
    display: str | None
    rank: DiagnosisRank


class EncounterResponse(BaseModel):
    encounter_id: UUID
    version: int
    patient_id: UUID
    status: str
    appointment_id: UUID | None
    referral_id: UUID | None
    practitioner_id: UUID
    practitioner_name: str | None
    centre_id: UUID
    department_id: UUID
    started_at: datetime
    ended_at: datetime | None
    recorded_at: datetime
    summary: str | None
    recommendations: str | None
    diagnoses: list[DiagnosisResponse]

    @classmethod
    def of(cls, encounter: Encounter, names: Mapping[UUID, str]) -> "EncounterResponse":
        values = dict(vars(encounter))
        values["diagnoses"] = [DiagnosisResponse(system=ICD_10, **vars(d)) for d in encounter.diagnoses]
        return cls(practitioner_name=names.get(encounter.practitioner_id), **values)


class PrescribedItemBody(Request):
    medication: Annotated[Label, Field(description="As written by the prescriber")]
    code: Label | None = None
    system: Label | None = None
    dose: Label | None = None
    route: Label | None = None
    frequency: Label | None = None
    duration_days: Annotated[int | None, Field(ge=1, le=3650)] = None
    instructions: Text | None = None


class PrescriptionRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "department_id": "01900000-0000-7000-8000-de0000000001",
                    "valid_until_on": "2026-04-02",
                    "items": [
                        {
                            "medication": "Fictitious ointment 1 %",
                            "frequency": "twice a day",
                            "duration_days": 14,
                        }
                    ],
                }
            ]
        }
    )

    department_id: UUID
    encounter_id: UUID | None = None
    valid_until_on: date | None = None
    items: Annotated[list[PrescribedItemBody], Field(min_length=1, max_length=50)]

    def command(self) -> IssuePrescription:
        return IssuePrescription(
            department_id=self.department_id,
            encounter_id=self.encounter_id,
            valid_until_on=self.valid_until_on,
            items=tuple(PrescribedItem(**item.model_dump()) for item in self.items),
        )


class PrescriptionResponse(BaseModel):
    prescription_id: UUID
    version: int
    patient_id: UUID
    status: str
    encounter_id: UUID | None
    practitioner_id: UUID
    practitioner_name: str | None
    centre_id: UUID
    department_id: UUID
    issued_at: datetime
    valid_until_on: date | None
    items: list[PrescribedItemBody]

    @classmethod
    def of(cls, prescription: Prescription, names: Mapping[UUID, str]) -> "PrescriptionResponse":
        values: dict[str, Any] = dict(vars(prescription))
        values["items"] = [PrescribedItemBody(**vars(item)) for item in prescription.items]
        return cls(practitioner_name=names.get(prescription.practitioner_id), **values)


class ConsentRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"kind": "messaging", "channel": "sms", "status": "granted", "text_version": "2026-01"}
            ]
        }
    )

    kind: Annotated[Code, Field(description="What for: data-processing, messaging, marketing, ...")]
    channel: Annotated[Code | None, Field(description="Only this channel; absent: every channel")] = None
    status: ConsentStatus
    text_version: Annotated[Label, Field(description="Which wording was agreed to")]
    expires_at: AwareDatetime | None = None

    def command(self) -> StateConsent:
        return StateConsent(
            kind=self.kind,
            channel=self.channel,
            status=self.status,
            text_version=self.text_version,
            expires_at=self.expires_at,
        )


class ConsentResponse(BaseModel):
    consent_id: UUID
    version: int
    patient_id: UUID
    kind: str
    channel: str | None
    status: ConsentStatus
    text_version: str
    changed_at: datetime
    expires_at: datetime | None

    @classmethod
    def of(cls, consent: Consent) -> "ConsentResponse":
        return cls(**vars(consent))


class ConsentStatement(BaseModel):
    """One version of a consent: what was said, when, and who wrote it down."""

    version: int
    status: ConsentStatus
    text_version: str
    changed_at: datetime
    expires_at: datetime | None
    recorded_by: UUID


class ConsentWithHistory(ConsentResponse):
    history: list[ConsentStatement]


class ObservationMeaning(BaseModel):
    """What we make of it: LOINC and UCUM; `value` where it was converted; `panic` outside our range of the test."""

    code: str | None = None
    display: str | None = None
    units: str | None = None
    value: str | None = None
    panic: str | None = None
    map_version: int | None = None


class ObservationResponse(BaseModel):
    """Values stand as the lab wrote them, as text; `meaning` is ours."""

    code: str | None
    system: str | None
    display: str | None
    value_type: str | None
    value: str | None
    units: str | None
    reference_range: str | None
    interpretation: list[str]
    status: str | None
    observed_at: datetime | None
    sub_id: str | None
    notes: list[str]
    meaning: ObservationMeaning | None

    @classmethod
    def of(cls, observation: Observation) -> "ObservationResponse":
        return cls(**vars(observation) | _as_lists(observation, "interpretation", "notes"))


class ReportCode(BaseModel):
    code: str | None
    system: str | None
    display: str | None


class ResultVersionResponse(BaseModel):
    version: int
    status: str
    report: ReportCode
    lab_order_id: UUID | None
    placer_order_number: str | None
    parent_filler_order_number: str | None
    filler_order_number: str | None
    partner_id: UUID
    message_id: UUID
    collected_at: datetime | None
    reported_at: datetime | None
    received_at: datetime
    filed_at: datetime
    observation_count: int
    abnormal_count: int
    critical_count: int
    retraction_reason_code: str | None
    conclusion: str | None
    notes: list[str]
    observations: list[ObservationResponse]

    @classmethod
    def of(cls, result: ResultVersion) -> "ResultVersionResponse":
        values = {name: value for name, value in vars(result).items() if name in cls.model_fields}
        values["notes"] = list(result.notes)
        values["observations"] = [ObservationResponse.of(line) for line in result.observations]
        report = ReportCode(
            code=result.report_code, system=result.report_system, display=result.report_display
        )
        return cls(report=report, **values)


class ResultResponse(BaseModel):
    """One lab report with its versions, the newest first; that one is in force."""

    result_id: UUID
    patient_id: UUID
    status: str
    current_version: int
    versions: list[ResultVersionResponse]

    @classmethod
    def of(cls, versions: Sequence[ResultVersion]) -> "ResultResponse":
        newest = versions[0]
        return cls(
            result_id=newest.result_id,
            patient_id=newest.patient_id,
            status=newest.status,
            current_version=newest.version,
            versions=[ResultVersionResponse.of(version) for version in versions],
        )


class TimelineEntryResponse(BaseModel):
    """An appointment, encounter, referral, order, result, message, invoice ... as it is now."""

    kind: EntryKind
    id: UUID
    version: int
    status: str
    occurred_at: datetime
    centre_id: UUID | None
    department_id: UUID | None
    practitioner_id: UUID | None
    code: Annotated[str | None, Field(description="The service, test, purpose or kind that it is about")]
    amount_minor: int | None
    currency: str | None

    @classmethod
    def of(cls, entry: TimelineEntry) -> "TimelineEntryResponse":
        values = {name: value for name, value in vars(entry).items() if name in cls.model_fields}
        return cls(id=entry.source_id, **values)


def _as_lists(value: object, *names: str) -> dict[str, list[str]]:
    return {name: list(getattr(value, name)) for name in names}
