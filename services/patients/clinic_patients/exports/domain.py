"""An export of a patient's record: its states, whom it is for, what is missing from it. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from clinic_shared.errors import DomainError

KEPT_FOR = timedelta(days=7)
GATHERED_WITHIN = timedelta(minutes=15)
"""After this, whoever waits may take what is there; what comes later still gets in."""


class ExportNotReadyError(DomainError):
    """Some services haven't sent their part yet; after a quarter of an hour, one gets what is there."""

    slug: ClassVar[str] = "export-not-ready"
    title: ClassVar[str] = "The export is still being gathered"
    fix: ClassVar[str] = "Ask for the export's state until it is `ready` or `incomplete`."
    retry_after_seconds = 2


class ExportExpiredError(DomainError):
    """An export can be taken out for seven days, unless data of the patient are erased before. Then it is destroyed."""

    slug: ClassVar[str] = "export-expired"
    title: ClassVar[str] = "The export is gone"
    status: ClassVar[int] = 410
    fix: ClassVar[str] = "Ask for a new one."


class Purpose(StrEnum):
    """HL7 v3 ActReason: why somebody takes out a whole record."""

    PATIENT_REQUEST = "PATRQT"
    LEGAL = "HLEGAL"
    TREATMENT_ELSEWHERE = "TREAT"
    COVERAGE = "COVERAGE"
    RESEARCH = "HRESCH"

    @property
    def needs_consent(self) -> bool:
        """Neither what the patient asks for nor what the law does is a matter of their consent."""
        return self not in {Purpose.PATIENT_REQUEST, Purpose.LEGAL}


class ExportState(StrEnum):
    GATHERING = "gathering"
    READY = "ready"
    INCOMPLETE = "incomplete"
    EXPIRED = "expired"


class PartState(StrEnum):
    INCLUDED = "included"
    WAITING = "waiting"
    MISSING = "missing"
    TOO_LARGE = "too-large"
    NOT_INSTALLED = "not-installed"


@dataclass(frozen=True, kw_only=True)
class Export:
    """`record_ids` are all records of the person; `awaited` the services that are installed here."""

    export_id: UUID
    patient_id: UUID
    record_ids: Sequence[UUID]
    state: ExportState
    for_patient: bool
    purpose: Purpose
    reason: str | None
    recipient: str | None
    requested_by: UUID
    requested_at: datetime
    gather_until: datetime
    answer_due_at: datetime
    expires_at: datetime
    awaited: Sequence[str]
    completed_at: datetime | None = None

    def require_takeable(self) -> None:
        """Raises ExportNotReadyError, ExportExpiredError."""
        if self.state is ExportState.EXPIRED:
            raise ExportExpiredError
        if self.state is ExportState.GATHERING:
            raise ExportNotReadyError

    def parts(self, arrived: Mapping[str, PartState], all_services: Collection[str]) -> dict[str, PartState]:
        """Say of every service that could contribute what became of its part: none is left out in silence."""
        missing = PartState.WAITING if self.state is ExportState.GATHERING else PartState.MISSING
        return {
            name: arrived.get(name, missing if name in self.awaited else PartState.NOT_INSTALLED)
            for name in sorted(all_services)
        }

    def is_complete(self, arrived: Collection[str]) -> bool:
        return set(self.awaited) <= set(arrived)
