"""The rules of lab results, pure: what a report says, what a newer one does to it, and who it is about.

A report (OBR) is an aggregate with versions. What a lab sends is merged into what is known, since an
observation that isn't sent again is not withdrawn (HL7 v2.5.1, table 0085: that is what D and W are for).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import NewType
from uuid import UUID

from clinic_lab_integration.hl7 import ResultStatus
from clinic_lab_integration.meaning import Meaning

PartnerId = NewType("PartnerId", UUID)
MessageId = NewType("MessageId", UUID)
ResultId = NewType("ResultId", UUID)
LabOrderId = NewType("LabOrderId", UUID)


OWN_AUTHORITY = "POLYCLINIC"
"""Who assigns our order numbers, as we know it; a laboratory may know us by another name (its configuration)."""


class Disposition(StrEnum):
    """What became of one patient group of a message, or of one report in it. Always exactly one."""

    IN_FLIGHT = "in-flight"
    APPLIED = "applied"
    PARKED = "parked"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"
    DUPLICATE = "duplicate"
    DISCARDED = "discarded"


class ParkReason(StrEnum):
    """Why a person has to decide."""

    UNMATCHED = "unmatched"
    SEVERAL_PATIENTS = "several-patients"
    ORDER_OF_ANOTHER_PATIENT = "order-of-another-patient"
    ORDER_OF_ANOTHER_LAB = "order-of-another-lab"
    WENT_BACK = "status-went-back"
    AFTER_RETRACTION = "after-retraction"
    NO_RESULTS = "no-results"
    NOT_FOR_PRODUCTION = "not-for-production"
    UNDONE = "decision-undone"


# -- observations and their merging


@dataclass(frozen=True, kw_only=True)
class ObservationState:
    """One observation as events carry it: strings as the lab wrote them, None where it left them empty."""

    code: str | None
    system: str | None
    display: str | None
    value_type: str | None
    value: str | None
    units: str | None
    reference_range: str | None
    interpretation: tuple[str, ...]
    status: str | None
    observed_at: str | None
    sub_id: str | None
    notes: tuple[str, ...]
    meaning: Meaning | None = field(default=None, compare=False)
    """Ours, not the laboratory's: another map makes no other result."""

    @property
    def is_critical(self) -> bool:
        """By the laboratory's flag, or by our panic range of the test."""
        flagged = not _CRITICAL.isdisjoint(self.interpretation)
        outside = self.meaning is not None and self.meaning.panic is not None
        return (flagged or outside) and self.status not in _WITHDRAWN

    def as_written(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "meaning"}

    @property
    def is_abnormal(self) -> bool:
        return not _ABNORMAL.isdisjoint(self.interpretation) and self.status not in _WITHDRAWN

    def struck(self) -> "ObservationState":
        return replace(self, value=None, interpretation=(), notes=(), status=_DELETED, meaning=None)

    @property
    def tells(self) -> tuple[object, ...]:
        """What makes a critical value another one than before; its status doesn't."""
        return (self.code, self.system, self.sub_id, self.value, self.units, self.interpretation)


# OBX-8, HL7 table 0078.
_CRITICAL = frozenset({"HH", "LL", "AA"})
_ABNORMAL = _CRITICAL | {"H", "L", "A", "<", ">", "R"}
# OBX-11, HL7 table 0085. W: "post original as wrong, e.g. transmitted for wrong patient"; D: deleted.
_WRONG, _DELETED = "W", "D"
_WITHDRAWN = frozenset({_WRONG, _DELETED, "X"})


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """The clinical part of a report's version."""

    observations: tuple[ObservationState, ...] = ()
    notes: tuple[str, ...] = ()
    conclusion: str | None = None

    def as_written(self) -> dict[str, object]:
        """Return it as it is stored, without what we make of it."""
        return {
            "observations": [o.as_written() for o in self.observations],
            "notes": list(self.notes),
            "conclusion": self.conclusion,
        }

    def count(self, *, critical: bool) -> int:
        return sum(o.is_critical if critical else o.is_abnormal for o in self.observations)


def merged(known: ReportContent, sent: ReportContent) -> ReportContent:
    """What holds after `sent`: what it repeats is replaced, the rest stands.

    What it deletes stays as a line that says so, without its value: a reader of the version before must
    see that something is missing, and what.
    """
    by_key = dict(_keyed(known.observations))
    for key, observation in _keyed(sent.observations):
        is_deleted = observation.status == _DELETED
        by_key[key] = by_key.get(key, observation).struck() if is_deleted else observation
    return ReportContent(
        observations=tuple(by_key.values()),
        notes=sent.notes or known.notes,
        conclusion=sent.conclusion or known.conclusion,
    )


_ObservationKey = tuple[str | None, str | None, str | None, int]


def _keyed(observations: Iterable[ObservationState]) -> Iterable[tuple[_ObservationKey, ObservationState]]:
    """Code, code system and sub-id; labs repeat all three, so the n-th of its like is the n-th."""
    seen: dict[tuple[str | None, str | None, str | None], int] = {}
    for observation in observations:
        name = (observation.code, observation.system, observation.sub_id)
        seen[name] = seen.get(name, 0) + 1
        yield (*name, seen[name]), observation


# -- versions of a report


@dataclass(frozen=True, kw_only=True)
class SentReport:
    """One report of a message: an OBR with what belongs to it. `index` counts within the patient group."""

    index: int
    key: str
    placer_order_number: str | None
    filler_order_number: str | None
    own_order_number: str | None
    code: str | None
    system: str | None
    display: str | None
    status: ResultStatus
    collected_at: datetime | None
    reported_at: datetime | None
    sent_at: datetime | None
    content: ReportContent
    parent_filler_order_number: str | None = None
    """Of the report that this one grew out of: a reflex test, or a culture's susceptibilities."""


@dataclass(frozen=True, kw_only=True)
class ReportVersion:
    """A version as it is known; version 0 is a report of which nothing is known yet."""

    version: int = 0
    status: ResultStatus = ResultStatus.REGISTERED
    retraction_reason_code: str | None = None
    collected_at: datetime | None = None
    reported_at: datetime | None = None
    sent_at: datetime | None = None
    content: ReportContent = field(default_factory=ReportContent)

    @property
    def digest(self) -> str:
        """Equal when nothing that a reader sees differs."""
        seen = {
            "status": self.status.value,
            "reason": self.retraction_reason_code,
            **self.content.as_written(),
        }
        return hashlib.sha256(json.dumps(seen, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class Superseded:
    """What is known is as new or newer."""


@dataclass(frozen=True)
class Parked:
    reason: ParkReason


RELEASED = frozenset({ResultStatus.FINAL, ResultStatus.AMENDED, ResultStatus.CORRECTED})
RETRACTED = frozenset({ResultStatus.CANCELLED, ResultStatus.ENTERED_IN_ERROR})
_CHANGED = frozenset({ResultStatus.AMENDED, ResultStatus.CORRECTED})


def next_version(
    known: ReportVersion, sent: SentReport, *, decided: bool = False
) -> ReportVersion | Superseded | Parked:
    """Decide what a report does to what is known of it. `decided` by a person: order doesn't matter then."""
    new = _resulting(known, sent)
    if known.version == 0:
        return new
    if new.digest == known.digest:
        return Superseded()
    if decided or new.status in RETRACTED:
        return new
    return _in_turn(known, sent, new)


def _in_turn(
    known: ReportVersion, sent: SentReport, new: ReportVersion
) -> ReportVersion | Superseded | Parked:
    """Whether something else than what is known comes after it, before it, or nobody can say."""
    newer = _is_newer(known, sent)
    if known.status in RETRACTED:
        # Its original may arrive late and must not come to life again; a real reinstatement may.
        if newer is None:
            return Parked(ParkReason.AFTER_RETRACTION)
        return new if newer else Superseded()
    if known.status in RELEASED and new.status not in RELEASED:
        return Parked(ParkReason.WENT_BACK) if newer else Superseded()
    late = known.status in _CHANGED and sent.status not in _CHANGED and newer is not True
    if late or (newer is False and _rank(new.status) <= _rank(known.status)):
        return Superseded()
    return new


def _rank(status: ResultStatus) -> int:
    """How far a report has come."""
    if status in RELEASED:
        return 2
    return 0 if status is ResultStatus.REGISTERED else 1


def _is_newer(known: ReportVersion, sent: SentReport) -> bool | None:
    """By the lab's own times: of the report (OBR-22), else of the message (MSH-7); None if they don't tell."""
    for mine, theirs in ((known.reported_at, sent.reported_at), (known.sent_at, sent.sent_at)):
        if mine and theirs and mine != theirs:
            return theirs > mine
    return None


def _resulting(known: ReportVersion, sent: SentReport) -> ReportVersion:
    status, reason = _retraction(sent) or (sent.status, None)
    content = ReportContent()
    if status is not ResultStatus.ENTERED_IN_ERROR:
        content = merged(known.content, sent.content)
        status = _released_anew(known, sent, status)
    return ReportVersion(
        version=known.version + 1,
        status=status,
        retraction_reason_code=reason,
        collected_at=sent.collected_at or known.collected_at,
        reported_at=sent.reported_at or known.reported_at,
        sent_at=sent.sent_at or known.sent_at,
        content=content,
    )


def _retraction(sent: SentReport) -> tuple[ResultStatus, str] | None:
    """All that was sent is wrong or deleted: so is the report."""
    statuses = {o.status for o in sent.content.observations}
    if not statuses or statuses - {_WRONG, _DELETED}:
        return None
    return ResultStatus.ENTERED_IN_ERROR, "wrong-patient" if _WRONG in statuses else "deleted"


def _released_anew(known: ReportVersion, sent: SentReport, status: ResultStatus) -> ResultStatus:
    """Many labs go on saying "final" when they change what was final."""
    if status is not ResultStatus.FINAL:
        return status
    if {o.status for o in sent.content.observations} & {"C", _WRONG, _DELETED}:
        return ResultStatus.CORRECTED
    if known.status not in RELEASED or known.version == 0:
        return status
    unchanged = replace(known, status=status).digest
    if replace(known, status=status, content=merged(known.content, sent.content)).digest == unchanged:
        return known.status
    before = dict(_keyed(known.content.observations))
    changed = any(before.get(key, o) != o for key, o in _keyed(sent.content.observations))
    return ResultStatus.CORRECTED if changed else ResultStatus.AMENDED


def new_criticals(known: ReportVersion, new: ReportVersion) -> tuple[ObservationState, ...]:
    """The critical observations that nobody was told of yet."""
    told = {o.tells for o in known.content.observations if o.is_critical}
    if new.status in RETRACTED:
        return ()
    return tuple(o for o in new.content.observations if o.is_critical and o.tells not in told)


# -- matching


@dataclass(frozen=True)
class Identifier:
    """A patient's number with who assigned it, both as written."""

    authority: str
    value: str


@dataclass(frozen=True, kw_only=True)
class KnownOrder:
    lab_order_id: LabOrderId
    placer_order_number: str
    patient_id: UUID
    partner_id: UUID
    practitioner_id: UUID
    centre_id: UUID
    department_id: UUID


def match(partner_id: UUID, *, orders: Sequence[KnownOrder], identified: Iterable[UUID]) -> UUID | ParkReason:
    """Whose results these are: by our order numbers, by identifiers, and never by name or birth date.

    `orders` are ours that the group names, `identified` the patients who have its identifiers.
    """
    if any(order.partner_id != partner_id for order in orders):
        return ParkReason.ORDER_OF_ANOTHER_LAB
    ordered = {order.patient_id for order in orders}
    known = set(identified)
    if len(ordered) > 1 or len(known) > 1:
        return ParkReason.SEVERAL_PATIENTS
    if ordered and known and ordered != known:
        return ParkReason.ORDER_OF_ANOTHER_PATIENT
    return next(iter(ordered or known), ParkReason.UNMATCHED)


def settled(reports: Iterable[Disposition]) -> Disposition:
    """What a patient group's disposition is, out of those of its reports."""
    found = set(reports)
    for disposition in (Disposition.PARKED, Disposition.IN_FLIGHT, Disposition.APPLIED):
        if disposition in found:
            return disposition
    return Disposition.SUPERSEDED


# -- orders


class OrderStatus(StrEnum):
    PLACED = "placed"
    PARTLY_RESULTED = "partly-resulted"
    RESULTED = "resulted"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class OrderedTest:
    code: str
    system: str | None = None
    display: str | None = None


def order_status(tests: Sequence[OrderedTest], results: Mapping[UUID, ResultStatus]) -> OrderStatus:
    """Every test has a released result. Counted, not compared: labs answer in codes of their own."""
    released = sum(status in RELEASED for status in results.values())
    if not any(status not in RETRACTED for status in results.values()):
        return OrderStatus.PLACED
    return OrderStatus.RESULTED if released >= len(tests) else OrderStatus.PARTLY_RESULTED
