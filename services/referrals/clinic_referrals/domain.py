"""A referral's life, pure. The order, the visit and the report are states of one obligation.

Who asks stays responsible until the referral is closed; who accepts owes an appointment, a visit and
a report. When the appointment falls through, the referral is accepted again: the patient still waits.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType
from uuid import UUID

from clinic_shared.errors import DomainError, InvalidRequestError

ReferralId = NewType("ReferralId", UUID)


class ReferralStatus(StrEnum):
    """contracts/taxonomy/statuses.yaml; FHIR R4 Task.status of the receiving department beside each."""

    CREATED = "created"  # requested
    ACCEPTED = "accepted"  # accepted
    DECLINED = "declined"  # rejected
    BOOKED = "booked"  # accepted
    SEEN = "seen"  # in-progress
    REPORTED = "reported"  # completed
    CLOSED = "closed"  # completed


_MOVES = {
    # From BOOKED only by the appointment's falling through: `without_appointment`.
    ReferralStatus.ACCEPTED: (ReferralStatus.CREATED,),
    ReferralStatus.DECLINED: (ReferralStatus.CREATED, ReferralStatus.ACCEPTED),
    ReferralStatus.BOOKED: (ReferralStatus.ACCEPTED,),
    ReferralStatus.SEEN: (ReferralStatus.BOOKED,),
    ReferralStatus.REPORTED: (ReferralStatus.SEEN,),
    ReferralStatus.CLOSED: tuple(s for s in ReferralStatus if s is not ReferralStatus.CLOSED),
}


class Priority(StrEnum):
    """FHIR R4 ServiceRequest.priority."""

    ROUTINE = "routine"
    URGENT = "urgent"
    ASAP = "asap"
    STAT = "stat"


class IllegalMoveError(DomainError):
    """It is declined before it is booked, reported after it was seen, and no longer changed once closed."""

    slug = "illegal-status-change"
    title = "The referral's status doesn't allow this"
    fix = "Read the referral again: its status says what has happened to it."


class ReferralToSelfError(InvalidRequestError):
    """Sending and receiving department are the same."""

    slug = "referral-to-self"
    title = "A department can't refer a patient to itself"
    fix = "Name another receiving department; for a further visit to the same one, book an appointment."


@dataclass(frozen=True)
class Place:
    """A department and the centre it belongs to."""

    department_id: UUID
    centre_id: UUID


@dataclass(frozen=True, kw_only=True)
class Referral:
    referral_id: ReferralId
    version: int
    status: ReferralStatus
    patient_id: UUID
    priority: Priority
    sender: Place
    from_practitioner_id: UUID | None
    receiver: Place
    to_practitioner_id: UUID | None
    service_code: str | None
    source_encounter_id: UUID | None
    question: str | None
    created_at: datetime
    appointment_id: UUID | None = None
    encounter_id: UUID | None = None
    outcome: str | None = None
    decline_comment: str | None = None
    decline_reason_code: str | None = None
    close_reason_code: str | None = None
    accepted_at: datetime | None = None
    declined_at: datetime | None = None
    booked_at: datetime | None = None
    seen_at: datetime | None = None
    reported_at: datetime | None = None
    closed_at: datetime | None = None

    def moved_to(self, status: ReferralStatus, *, now: datetime, **changes: Any) -> "Referral":
        """Return the referral in its next status. Raises IllegalMoveError."""
        if self.status not in _MOVES.get(status, ()):
            raise IllegalMoveError(f"From {self.status} there is no way to {status}.", status=self.status)
        stamped: dict[str, Any] = {f"{status.value}_at": now, **changes}
        return replace(self, status=status, version=self.version + 1, **stamped)

    def can_move_to(self, status: ReferralStatus) -> bool:
        return self.status in _MOVES.get(status, ())

    def without_appointment(self) -> "Referral":
        """Return the referral as it waits for another appointment; its acceptance keeps its date."""
        return replace(
            self,
            status=ReferralStatus.ACCEPTED,
            version=self.version + 1,
            appointment_id=None,
            booked_at=None,
        )


def check_edge(sender: Place, receiver: Place) -> None:
    if sender.department_id == receiver.department_id:
        raise ReferralToSelfError
