"""Two records of one person become one, and two again where they weren't. Pure.

Nothing in a chart is moved: the replaced record keeps what it has, and is read together with the one that replaces it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from clinic_shared.errors import DomainError

from clinic_patients.domain import Patient, PatientStatus


class MergeState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    UNDONE = "undone"


class NotMergeableError(DomainError):
    """Both records must be in use, and two."""

    slug: ClassVar[str] = "patients-not-mergeable"
    title: ClassVar[str] = "These two records can't be merged"
    fix: ClassVar[str] = (
        "Name two different records that are `active`; merge into the one that replaces the other."
    )


class MergeNotInForceError(DomainError):
    """Only a merge that was approved, and whose result wasn't merged further, can be undone."""

    slug: ClassVar[str] = "merge-not-in-force"
    title: ClassVar[str] = "The merge can't be undone now"
    fix: ClassVar[str] = "Read the merges of the record again; undo the latest first."


class PatientReplacedError(DomainError):
    """What is new about a person is written to the record that is in use."""

    slug: ClassVar[str] = "patient-replaced"
    title: ClassVar[str] = "The record was replaced by another one"
    fix: ClassVar[str] = "Write to the patient that `replaced_by` of this record names."


@dataclass(frozen=True, kw_only=True)
class Links:
    """FHIR's Patient.link."""

    replaced_by: UUID | None = None
    replaces: Sequence[UUID] = ()


@dataclass(frozen=True, kw_only=True)
class Merge:
    """`source` is replaced by `target`, as in FHIR's Patient/$merge."""

    merge_id: UUID
    version: int
    state: MergeState
    source_id: UUID
    target_id: UUID
    reason: str
    requested_by: UUID
    requested_at: datetime
    expires_at: datetime
    decided_by: UUID | None = None
    decided_at: datetime | None = None
    decision_reason: str | None = None
    undone_by: UUID | None = None
    undone_at: datetime | None = None
    undo_reason: str | None = None


def merged(source: Patient, target: Patient, *, now: datetime) -> tuple[Patient, Patient]:
    """Return both records as they are when one has replaced the other. Raises NotMergeableError."""
    if source.patient_id == target.patient_id:
        raise NotMergeableError("They are one record.")
    if {source.status, target.status} != {PatientStatus.ACTIVE}:
        raise NotMergeableError("One of them is not active.")
    known = {identifier.key for identifier in target.identifiers}
    added = [identifier for identifier in source.identifiers if identifier.key not in known]
    return (
        replace(source, status=PatientStatus.MERGED, version=source.version + 1, updated_at=now),
        replace(
            target,
            identifiers=(*target.identifiers, *added),
            version=target.version + 1,
            updated_at=now,
        ),
    )


def parted(source: Patient, target: Patient, *, now: datetime) -> tuple[Patient, Patient]:
    """Return both records as two people's again; each has its own identifiers. Raises MergeNotInForceError."""
    if source.status is not PatientStatus.MERGED or target.status is PatientStatus.MERGED:
        raise MergeNotInForceError
    own = {identifier.key for identifier in source.identifiers}
    return (
        replace(source, status=PatientStatus.ACTIVE, version=source.version + 1, updated_at=now),
        replace(
            target,
            identifiers=tuple(i for i in target.identifiers if i.key not in own),
            version=target.version + 1,
            updated_at=now,
        ),
    )


def refuse_replaced(patient: Patient) -> None:
    """Raises PatientReplacedError."""
    if patient.status is PatientStatus.MERGED:
        raise PatientReplacedError
