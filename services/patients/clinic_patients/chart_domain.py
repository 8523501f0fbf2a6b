"""The chart's rules, pure. What stands in a chart is amended by newer versions, never overwritten."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from clinic_shared.errors import DomainError, InvalidRequestError

ICD_10 = "http://hl7.org/fhir/sid/icd-10"


class EncounterTimeError(InvalidRequestError):
    """`ended_at` is earlier than `started_at`."""

    slug: ClassVar[str] = "encounter-ends-before-it-starts"
    title: ClassVar[str] = "The encounter ends before it starts"
    fix: ClassVar[str] = "Correct one of the two; leave `ended_at` out while the visit goes on."


class PrimaryDiagnosisError(InvalidRequestError):
    """An encounter has at most one primary diagnosis, and each diagnosis once."""

    slug: ClassVar[str] = "one-primary-diagnosis"
    title: ClassVar[str] = "The diagnoses contradict each other"
    fix: ClassVar[str] = "Mark one diagnosis as primary and name each once."


class ReferenceMismatchError(DomainError):
    """The appointment, referral or encounter that the request names belongs to another patient."""

    slug: ClassVar[str] = "reference-mismatch"
    title: ClassVar[str] = "A reference belongs to another patient"
    fix: ClassVar[str] = "Check the id in the field that `reference` names, and whose chart is open."


class ResultVersionConflictError(DomainError):
    """The same version of a result came with other content; neither may replace the other."""

    slug: ClassVar[str] = "result-version-conflict"
    title: ClassVar[str] = "This version of the result is filed with other content"
    fix: ClassVar[str] = (
        "Ask the laboratory which content is right; it sends that as a correction. Then discard this message."
    )


class EncounterStatus(StrEnum):
    IN_PROGRESS = "in-progress"
    FINISHED = "finished"


class DiagnosisRank(StrEnum):
    PRIMARY = "primary"
    SECONDARY = "secondary"


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """An ICD-10 code, with its text as the doctor's own list had it."""

    code: str
    display: str | None
    rank: DiagnosisRank


def check_diagnoses(diagnoses: Sequence[Diagnosis]) -> None:
    """Refuse two primary diagnoses, or one twice. Raises PrimaryDiagnosisError."""
    primary = sum(d.rank is DiagnosisRank.PRIMARY for d in diagnoses)
    if primary > 1 or len({d.code for d in diagnoses}) < len(diagnoses):
        raise PrimaryDiagnosisError


@dataclass(frozen=True, kw_only=True)
class Encounter:
    """A visit as the doctor wrote it down."""

    encounter_id: UUID
    version: int
    patient_id: UUID
    status: EncounterStatus
    appointment_id: UUID | None
    referral_id: UUID | None
    practitioner_id: UUID
    centre_id: UUID
    department_id: UUID
    started_at: datetime
    ended_at: datetime | None
    recorded_at: datetime
    summary: str | None
    recommendations: str | None
    diagnoses: tuple[Diagnosis, ...]


@dataclass(frozen=True, kw_only=True)
class PrescribedItem:
    medication: str
    code: str | None
    system: str | None
    dose: str | None
    route: str | None
    frequency: str | None
    duration_days: int | None
    instructions: str | None


@dataclass(frozen=True, kw_only=True)
class Prescription:
    prescription_id: UUID
    version: int
    patient_id: UUID
    status: str
    encounter_id: UUID | None
    practitioner_id: UUID
    centre_id: UUID
    department_id: UUID
    issued_at: datetime
    valid_until_on: date | None
    items: tuple[PrescribedItem, ...]


class ConsentStatus(StrEnum):
    GRANTED = "granted"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, kw_only=True)
class Consent:
    """What one patient said last about one purpose on one channel (None: on every channel)."""

    consent_id: UUID
    version: int
    patient_id: UUID
    kind: str
    channel: str | None
    status: ConsentStatus
    text_version: str
    changed_at: datetime
    expires_at: datetime | None

    def says_the_same_as(self, other: "Consent") -> bool:
        return (self.status, self.text_version, self.expires_at) == (
            other.status,
            other.text_version,
            other.expires_at,
        )


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One line of a lab report; every value stands as the lab wrote it, and what it means beside it."""

    code: str | None
    system: str | None
    display: str | None
    value_type: str | None
    value: str | None
    units: str | None
    reference_range: str | None
    interpretation: tuple[str, ...]
    status: str | None
    observed_at: datetime | None
    sub_id: str | None
    notes: tuple[str, ...]
    meaning: Mapping[str, Any] | None = field(default=None, compare=False)
    """Ours, not the laboratory's: the release before files without it."""

    @property
    def identity(self) -> tuple[str | None, str | None, str | None]:
        return (self.code, self.system, self.sub_id)


_POSTED_IN_ERROR = "W"
"""OBX-11, HL7 table 0085: "post original as wrong, e.g. transmitted for wrong patient"."""
RETRACTED = "entered-in-error"
RELEASED_STATUSES = ("final", "amended", "corrected", "cancelled", RETRACTED)
"""FHIR R4 DiagnosticReport.status that a patient sees; earlier ones are for those who judge them."""


@dataclass(frozen=True, kw_only=True)
class ResultVersion:
    """One version of one lab report. A correction is a version beside it, not instead of it."""

    result_id: UUID
    version: int
    patient_id: UUID
    status: str
    lab_order_id: UUID | None
    placer_order_number: str | None
    filler_order_number: str | None
    partner_id: UUID
    message_id: UUID
    group_index: int
    report_index: int
    practitioner_id: UUID | None
    centre_id: UUID | None
    department_id: UUID | None
    report_code: str | None
    report_system: str | None
    report_display: str | None
    observation_count: int
    abnormal_count: int
    critical_count: int
    collected_at: datetime | None
    reported_at: datetime | None
    received_at: datetime
    retraction_reason_code: str | None
    conclusion: str | None
    notes: tuple[str, ...]
    observations: tuple[Observation, ...]
    filed_at: datetime
    parent_filler_order_number: str | None = None
    """Of the report that this one grew out of: a reflex test."""

    _DELIVERY: ClassVar[frozenset[str]] = frozenset(
        {"message_id", "group_index", "report_index", "received_at", "filed_at", "parent_filler_order_number"}
    )
    _PRIVATE: ClassVar[frozenset[str]] = frozenset({"conclusion", "notes", "observations"})

    @property
    def line(self) -> tuple[UUID, int, int]:
        """Which line of the lab's ledger this came from: message, patient group, report."""
        return (self.message_id, self.group_index, self.report_index)

    def withdraws(self, before: "ResultVersion | None") -> bool:
        """Tell whether something that stood in this chart must not be relied on any more."""
        if self.status in {RETRACTED, "cancelled"}:
            return before is None or before.status != self.status
        wrong = {line.identity for line in self.observations if line.status == _POSTED_IN_ERROR}
        known = (
            {line.identity for line in before.observations if line.status == _POSTED_IN_ERROR}
            if before
            else set()
        )
        return bool(wrong - known)

    def contradicts(self, other: "ResultVersion") -> bool:
        """Tell whether the same version says something else; after an erasure one may say less."""
        compared = {f.name for f in fields(self)} - self._DELIVERY
        if not (self.observations and other.observations):
            compared -= self._PRIVATE
        return any(getattr(self, name) != getattr(other, name) for name in compared)


class EntryKind(StrEnum):
    """What a timeline is made of: one entry per aggregate, as it is now."""

    APPOINTMENT = "appointment"
    ENCOUNTER = "encounter"
    PRESCRIPTION = "prescription"
    REFERRAL = "referral"
    LAB_ORDER = "lab-order"
    LAB_RESULT = "lab-result"
    CONSENT = "consent"
    MESSAGE = "message"
    INVOICE = "invoice"
    PAYMENT = "payment"


_SCOPE_OF_KIND = {
    EntryKind.LAB_RESULT: "results.read",
    EntryKind.CONSENT: "consents.read",
    EntryKind.MESSAGE: "messages.read",
    EntryKind.INVOICE: "invoices.read",
    EntryKind.PAYMENT: "payments.read",
}
"""What a kind asks for beyond the chart's own scope: a doctor's timeline shows no money."""


def kinds_open_to(scopes: Iterable[str]) -> list[EntryKind]:
    """Return the kinds of timeline entries that a reader of the chart may see."""
    held = set(scopes)
    return [kind for kind in EntryKind if _SCOPE_OF_KIND.get(kind) is None or _SCOPE_OF_KIND[kind] in held]


@dataclass(frozen=True, kw_only=True)
class TimelineEntry:
    """Codes and ids only. `code` says what it is about: the service, test, purpose or kind."""

    kind: EntryKind
    source_id: UUID
    version: int
    patient_id: UUID
    status: str
    occurred_at: datetime
    centre_id: UUID | None = None
    department_id: UUID | None = None
    practitioner_id: UUID | None = None
    code: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
