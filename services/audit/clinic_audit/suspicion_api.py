"""HTTP in: the privacy officer's work-list of what was found suspicious, and whose records are watched."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.errors import NotFoundError
from clinic_shared.routing import Caller, ClinicRouter, Page, PageQuery, Tx, page_of
from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from clinic_audit import suspicions
from clinic_audit.detection_rules import Rule, Severity
from clinic_audit.detection_tables import watched_patient
from clinic_audit.suspicions import Finding, State, Suspicion

router = ClinicRouter(prefix="/v1/audit", tags=["audit"])

REVIEW = "suspicions.review"
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=10, max_length=2000)]


class SuspicionResponse(BaseModel):
    """`person` is who acted, or whose login it was; nobody in particular when many were tried at once."""

    suspicion_id: UUID
    version: int
    rule: Rule
    severity: Severity
    state: State
    person: UUID
    patient_id: UUID | None
    first_at: datetime
    last_at: datetime
    records: Annotated[list[int], Field(description="`leaf_index` of the latest records, at most 20")]
    figures: Annotated[dict[str, int], Field(description="what was counted")]
    detected_at: datetime
    review_due_at: datetime
    taken_by: UUID | None
    taken_at: datetime | None
    closed_by: UUID | None
    closed_at: datetime | None
    finding: Finding | None
    comment: str | None

    @classmethod
    def of(cls, found: Suspicion) -> "SuspicionResponse":
        return cls(**{name: value for name, value in vars(found).items() if name != "occasion"})


class CloseRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"finding": "explained", "comment": "Fictitious: stood in for a colleague"}]
        },
    )

    finding: Finding
    comment: Words


class WatchRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"reason": "Fictitious person of public interest"}]}
    )

    reason: Words


class WatchedResponse(BaseModel):
    patient_id: UUID
    reason: str
    added_by: UUID
    added_at: datetime


@router.get("/suspicions", permission=REVIEW, operation_id="listSuspicions")
async def list_suspicions(
    tx: Tx, page: PageQuery, state: State | None = None, person: UUID | None = None
) -> Page[SuspicionResponse]:
    """List what was found suspicious and isn't closed, the oldest first; or what is in one state."""
    key = page.after_key(datetime, UUID)
    found = await suspicions.list_some(
        tx, state=state, person=person, after=(key[0], key[1]) if key else None, limit=page.limit + 1
    )
    items = [SuspicionResponse.of(one) for one in found]
    return page_of(items, page, key=lambda one: (one.detected_at, one.suspicion_id))


@router.post("/suspicions/{suspicion_id}/take", permission=REVIEW, operation_id="takeSuspicion")
async def take(tx: Tx, suspicion_id: UUID) -> SuspicionResponse:
    """Take it to look into; nobody does that about themselves."""
    return SuspicionResponse.of(await suspicions.take(tx, suspicion_id))


@router.post("/suspicions/{suspicion_id}/close", permission=REVIEW, operation_id="closeSuspicion")
async def close(tx: Tx, suspicion_id: UUID, body: CloseRequest) -> SuspicionResponse:
    """Close what was taken, with what it turned out to be. Final."""
    return SuspicionResponse.of(
        await suspicions.close(tx, suspicion_id, finding=body.finding, comment=body.comment)
    )


@router.get("/watched-patients", permission=REVIEW, operation_id="listWatchedPatients")
async def list_watched(tx: Tx) -> list[WatchedResponse]:
    """List whose record may not be looked up without an explanation, at most 1,000."""
    rows = await tx.fetch_all(select(watched_patient).order_by(watched_patient.c.added_at).limit(1000))
    for row in rows:
        _audit(tx, Action.READ, row.patient_id)
    return [WatchedResponse.model_validate(row, from_attributes=True) for row in rows]


@router.put("/watched-patients/{patient_id}", permission=REVIEW, operation_id="watchPatient")
async def watch(tx: Tx, caller: Caller, patient_id: UUID, body: WatchRequest) -> WatchedResponse:
    """Have every unexplained look-up of this record found."""
    values = {
        "patient_id": patient_id,
        "reason": body.reason,
        "added_by": caller.subject,
        "added_at": tx.now,
    }
    statement = insert(watched_patient).values(values)
    await tx.execute(statement.on_conflict_do_update(index_elements=["patient_id"], set_=values))
    _audit(tx, Action.UPDATE, patient_id)
    return WatchedResponse(**values)


@router.delete(
    "/watched-patients/{patient_id}", permission=REVIEW, status_code=204, operation_id="unwatchPatient"
)
async def unwatch(tx: Tx, patient_id: UUID) -> Response:
    """No longer watch this record."""
    gone = await tx.fetch_one(
        delete(watched_patient)
        .where(watched_patient.c.patient_id == patient_id)
        .returning(watched_patient.c.patient_id)
    )
    if gone is None:
        raise NotFoundError
    _audit(tx, Action.DELETE, patient_id)
    return Response(status_code=204)


def _audit(tx: Tx, action: Action, patient_id: UUID) -> None:
    tx.audit(
        AuditEntry(
            action=action, resource_type="WatchedPatient", resource_id=patient_id, patient_id=patient_id
        )
    )
