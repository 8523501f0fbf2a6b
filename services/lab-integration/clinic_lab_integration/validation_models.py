"""What a validation answers: the acknowledgement, the message as it was taken apart, and what to correct."""

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel, Field

from clinic_lab_integration import fhir
from clinic_lab_integration.domain import ParkReason, SentReport
from clinic_lab_integration.fhir import Issue, operation_outcome
from clinic_lab_integration.hl7 import Finding, Message, Segment
from clinic_lab_integration.hl7.fixes import fix_of
from clinic_lab_integration.hl7.model import HEADERS
from clinic_lab_integration.hl7.review import unread_segments
from clinic_lab_integration.meaning import SourceCode
from clinic_lab_integration.message_models import FindingResponse
from clinic_lab_integration.sandbox import SandboxPatient
from clinic_lab_integration.validation import Validated, ValidatedBundle, ValidGroup

_MOST_SEGMENTS = 500
_LONGEST_SHOWN = 2000


class FindingWithFix(FindingResponse):
    fix: str

    @classmethod
    def with_fix(cls, finding: Finding) -> "FindingWithFix":
        return cls(
            severity="W" if finding.severity == "W" else "E",
            code=finding.code,
            location=finding.location.path(),
            text=finding.text,
            fix=fix_of(finding),
        )

    @classmethod
    def of_issue(cls, issue: Issue) -> "FindingWithFix":
        return cls(
            severity="E" if issue.is_error else "W",
            code=issue.error_code,
            location=issue.path,
            text=issue.text,
            fix=fhir.fix_of(issue),
        )


class FieldNode(BaseModel):
    """A field that isn't empty, escapes resolved: its repetitions, each with its components."""

    location: str
    repetitions: list[list[str]]

    @classmethod
    def of(cls, segment: Segment, field: int, location: str) -> "FieldNode":
        if segment.name in HEADERS and field in (1, 2):
            return cls(location=location, repetitions=[[segment.raw(field)]])
        rules = segment.rules
        repetitions = [
            [
                one.component(number)[:_LONGEST_SHOWN]
                for number in range(1, one.raw.count(rules.component) + 2 if rules.component else 2)
            ]
            for one in segment.repetitions(field)
        ]
        return cls(location=location, repetitions=repetitions)


class SegmentNode(BaseModel):
    """`sequence` counts the segments of a name from 1."""

    name: str
    sequence: int
    fields: list[FieldNode]

    @classmethod
    def of(cls, segment: Segment) -> "SegmentNode":
        place = segment.name if segment.sequence == 1 else f"{segment.name}[{segment.sequence}]"
        given = (number for number in range(1, len(segment.fields)) if segment.raw(number))
        return cls(
            name=segment.name,
            sequence=segment.sequence,
            fields=[FieldNode.of(segment, number, f"{place}-{number}") for number in given],
        )


class ReadObservation(BaseModel):
    code: str | None
    system: str | None
    display: str | None
    value_type: str | None
    value: str | None
    units: str | None
    reference_range: str | None
    interpretation: list[str]
    status: str | None
    sub_id: str | None


class ReadReport(BaseModel):
    """A report as it was read; `status` is FHIR R4's DiagnosticReport.status."""

    placer_order_number: str | None
    filler_order_number: str | None
    code: str | None
    display: str | None
    status: str
    observations: list[ReadObservation]

    @classmethod
    def of(cls, report: SentReport) -> "ReadReport":
        return cls(
            placer_order_number=report.placer_order_number,
            filler_order_number=report.filler_order_number,
            code=report.code,
            display=report.display,
            status=report.status.value,
            observations=[
                ReadObservation(**{name: getattr(one, name) for name in ReadObservation.model_fields})
                for one in report.content.observations
            ],
        )


class MatchResponse(BaseModel):
    """`patient_id` is null without the scope lab-messages.read; `sandbox_number` is of a sandbox patient."""

    group_index: int
    matched: bool
    reason: str | None
    patient_id: UUID | None
    sandbox_number: str | None
    reports: list[ReadReport]

    @classmethod
    def of(cls, valid: ValidGroup, *, show_patient: bool) -> "MatchResponse":
        whose = valid.whose
        return cls(
            group_index=valid.group.index,
            matched=not isinstance(whose, ParkReason),
            reason=whose.value if isinstance(whose, ParkReason) else None,
            patient_id=whose if isinstance(whose, UUID) and show_patient else None,
            sandbox_number=whose.number if isinstance(whose, SandboxPatient) else None,
            reports=[ReadReport.of(report) for report in valid.group.reports],
        )


class CodeToMap(BaseModel):
    """A code or unit of the laboratory's own that nobody has mapped; results flow meanwhile."""

    kind: str
    system: str
    code: str
    display: str | None

    @classmethod
    def of(cls, unmapped: Mapping[SourceCode, str | None]) -> "list[CodeToMap]":
        return [
            cls(kind=source.kind.value, system=source.system, code=source.code, display=display)
            for source, display in unmapped.items()
        ]


class ValidatedMessage(BaseModel):
    control_id: str
    answer: str | None
    answer_code: str | None = Field(description="MSA-1; null where no answer may be given")
    charset: str
    charset_source: str = Field(description="declared, byte-order-mark, detected or default")
    findings: list[FindingWithFix]
    segments: list[SegmentNode] = Field(description=f"the first {_MOST_SEGMENTS} segments, taken apart")
    unread_segments: list[str] = Field(description="kept with the message; nothing is taken out of them")
    groups: list[MatchResponse]
    unmapped_codes: list[CodeToMap]

    @classmethod
    def of(cls, valid: Validated, *, show_patient: bool) -> "ValidatedMessage":
        message = valid.message
        codec = message.charset.codec
        return cls(
            control_id=message.header.control_id,
            answer=valid.answer.decode(codec, "replace") if valid.answer is not None else None,
            answer_code=message.answer_code,
            charset=codec,
            charset_source=message.charset.source.value,
            findings=[FindingWithFix.with_fix(finding) for finding in valid.findings],
            segments=list(_segments(message.message)),
            unread_segments=list(unread_segments(message.message)) if message.message else [],
            groups=[MatchResponse.of(group, show_patient=show_patient) for group in valid.groups],
            unmapped_codes=CodeToMap.of(valid.unmapped),
        )


def _segments(message: Message | None) -> Iterator[SegmentNode]:
    for segment in message.segments[:_MOST_SEGMENTS] if message else ():
        yield SegmentNode.of(segment)


class ValidatedFhirBundle(BaseModel):
    status: int = Field(description="HTTP status of the answer")
    answer: dict[str, Any] = Field(description="Bundle of answers, or the OperationOutcome that refuses it")
    outcome: dict[str, Any] = Field(description="OperationOutcome: every issue, of whichever entry")
    control_id: str | None
    findings: list[FindingWithFix]
    groups: list[MatchResponse]
    unmapped_codes: list[CodeToMap]

    @classmethod
    def of(cls, valid: ValidatedBundle, *, show_patient: bool) -> "ValidatedFhirBundle":
        return cls(
            status=valid.status,
            answer=orjson.loads(valid.answer),
            outcome=operation_outcome(valid.issues),
            control_id=valid.bundle.control_id if valid.bundle else None,
            findings=[FindingWithFix.of_issue(issue) for issue in valid.issues],
            groups=[MatchResponse.of(group, show_patient=show_patient) for group in valid.groups],
            unmapped_codes=CodeToMap.of(valid.unmapped),
        )


class Validation(BaseModel):
    """What would be answered: to HL7 v2 in `messages`, to a FHIR Bundle in `bundle`. Nothing was kept."""

    messages: list[ValidatedMessage] = []
    bundle: ValidatedFhirBundle | None = None
