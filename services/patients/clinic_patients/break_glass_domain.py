"""Opening a record in an emergency: for one patient and one hour, and judged afterwards. Pure."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Self
from uuid import UUID

from clinic_shared.errors import DomainError, ForbiddenError

from clinic_patients.care_domain import CareKind, CareRelationship

LASTS = timedelta(minutes=60)
REVIEWED_WITHIN = timedelta(hours=72)
PATIENT_TOLD_AFTER = timedelta(hours=24)
STARTS_A_DAY = 3
UNREVIEWED = 2
SUSPENDED_FOR = timedelta(days=90)


class BreakGlassState(StrEnum):
    REQUESTED = "requested"
    """Too many of late: a second clinician has to agree."""
    ACTIVE = "active"
    ENDED = "ended"
    REVIEWED = "reviewed"


class ReasonCode(StrEnum):
    EMERGENCY = "emergency"
    SUBSTITUTION = "substitution"
    TECHNICAL = "technical"
    """There is a relationship, and it isn't known here."""


class Verdict(StrEnum):
    JUSTIFIED = "justified"
    UNJUSTIFIED = "unjustified"


class BreakGlassSuspendedError(ForbiddenError):
    """Opening a record was judged unjustified within the last 90 days."""

    slug: ClassVar[str] = "break-glass-suspended"
    title: ClassVar[str] = "You may not open records in an emergency at present"
    fix: ClassVar[str] = "Ask a colleague to open the record, and the privacy officer about the judgement."


class BreakGlassStateError(DomainError):
    """It was ended, approved or judged already, or still goes on."""

    slug: ClassVar[str] = "break-glass-state"
    title: ClassVar[str] = "Its state doesn't allow this"
    fix: ClassVar[str] = (
        "Read it again: `state` says how far it has come. It can be judged once it has ended."
    )


class OwnBreakGlassError(DomainError):
    """Whoever opened the record neither approves nor judges that."""

    slug: ClassVar[str] = "break-glass-own"
    title: ClassVar[str] = "A second person has to do this"
    fix: ClassVar[str] = "Ask another clinician to approve, or another privacy officer to judge."


@dataclass(frozen=True, kw_only=True)
class BreakGlass:
    break_glass_id: UUID
    version: int
    state: BreakGlassState
    patient_id: UUID
    staff_id: UUID
    reason_code: ReasonCode
    reason: str
    requested_at: datetime
    approved_by: UUID | None = None
    started_at: datetime | None = None
    ends_at: datetime | None = None
    ended_at: datetime | None = None
    review_due_at: datetime | None = None
    overdue_at: datetime | None = None
    verdict: Verdict | None = None
    reviewed_at: datetime | None = None
    reviewed_by: UUID | None = None
    comment: str | None = None

    def started(self, now: datetime, *, approved_by: UUID | None = None) -> Self:
        self._require(BreakGlassState.REQUESTED)
        if approved_by == self.staff_id:
            raise OwnBreakGlassError
        return self._next(
            state=BreakGlassState.ACTIVE,
            approved_by=approved_by,
            started_at=now,
            ends_at=now + LASTS,
            review_due_at=now + REVIEWED_WITHIN,
        )

    def ended(self, now: datetime) -> Self:
        self._require(BreakGlassState.ACTIVE)
        return self._next(state=BreakGlassState.ENDED, ended_at=now)

    def reviewed(self, verdict: Verdict, comment: str, *, by: UUID, now: datetime) -> Self:
        self._require(BreakGlassState.ENDED)
        if by == self.staff_id:
            raise OwnBreakGlassError
        return self._next(
            state=BreakGlassState.REVIEWED, verdict=verdict, comment=comment, reviewed_by=by, reviewed_at=now
        )

    def overdue(self, now: datetime) -> Self:
        return self._next(overdue_at=now)

    def care(self) -> CareRelationship:
        """As a relationship all other rules stay as they are: still no payments, nobody else's record."""
        assert self.started_at is not None  # noqa: S101  # a request opens nothing
        return CareRelationship(
            kind=CareKind.BREAK_GLASS,
            source_id=self.break_glass_id,
            version=self.version,
            patient_id=self.patient_id,
            practitioner_id=self.staff_id,
            centre_id=None,
            department_id=None,
            begins_at=self.started_at,
            ends_at=self.ended_at or self.ends_at,
        )

    def is_told_to_the_patient(self, now: datetime) -> bool:
        return self.started_at is not None and now >= self.started_at + PATIENT_TOLD_AFTER

    def _require(self, state: BreakGlassState) -> None:
        if self.state is not state:
            raise BreakGlassStateError(state=self.state.value)

    def _next(self, **changes: object) -> Self:
        return replace(self, version=self.version + 1, **changes)  # type: ignore[arg-type]  # fields of ours
