"""HTTP in: merges of two records of one person, which take two people of the registry."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from clinic_shared.routing import Caller, ClinicRouter, Tx
from pydantic import BaseModel, ConfigDict, Field

from clinic_patients import merging
from clinic_patients.merge_domain import Merge, MergeState

router = ClinicRouter(prefix="/v1/patients/{patient_id}", tags=["patients"])

Reason = Annotated[
    str, Field(min_length=3, max_length=500, description="kept, shown and audited: no patient data here")
]


class MergeRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "source_patient_id": "01900000-0000-7000-8000-a00000000002",
                    "reason": "Registered twice at two desks",
                }
            ]
        },
    )

    source_patient_id: Annotated[UUID, Field(description="The record that is replaced")]
    reason: Reason


class ReasonRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"reason": "Two people of one name"}]}
    )

    reason: Reason


class MergeResponse(BaseModel):
    merge_id: UUID
    version: int
    state: MergeState
    source_patient_id: Annotated[UUID, Field(description="The record that is replaced")]
    target_patient_id: Annotated[UUID, Field(description="The record that stays")]
    reason: str
    requested_by: UUID
    requested_at: datetime
    expires_at: Annotated[datetime, Field(description="Until when a second person may agree")]
    decided_by: UUID | None
    decided_at: datetime | None
    decision_reason: str | None
    undone_by: UUID | None
    undone_at: datetime | None
    undo_reason: str | None

    @classmethod
    def of(cls, merge: Merge) -> "MergeResponse":
        ids = {"source_patient_id": merge.source_id, "target_patient_id": merge.target_id}
        return cls.model_validate({**vars(merge), **ids})


@router.post("/$merge", permission=merging.UPDATE, status_code=202, operation_id="mergePatients")
async def merge_patients(tx: Tx, caller: Caller, patient_id: UUID, body: MergeRequest) -> MergeResponse:
    """Ask for another record of the same person to be replaced by this one.

    Nothing changes until a second person of the registry approves. Then the other record is `merged` and
    `replaced_by` this one, its identifiers are this one's, and the chart is one under either id.
    """
    asked = await merging.ask(tx, patient_id, body.source_patient_id, reason=body.reason, caller=caller)
    return MergeResponse.of(asked)


@router.get("/merges", permission=merging.UPDATE, operation_id="listPatientMerges")
async def list_merges(tx: Tx, caller: Caller, patient_id: UUID) -> list[MergeResponse]:
    """List the merges that this record is or was part of, the newest first, at most 200."""
    return [MergeResponse.of(merge) for merge in await merging.list_merges(tx, patient_id, caller=caller)]


@router.post("/merges/{merge_id}/approve", permission=merging.UPDATE, operation_id="approvePatientMerge")
async def approve_merge(tx: Tx, caller: Caller, patient_id: UUID, merge_id: UUID) -> MergeResponse:
    """Agree as the second person, under the id of the record that stays."""
    return MergeResponse.of(await merging.approve(tx, patient_id, merge_id, caller=caller))


@router.post("/merges/{merge_id}/reject", permission=merging.UPDATE, operation_id="rejectPatientMerge")
async def reject_merge(
    tx: Tx, caller: Caller, patient_id: UUID, merge_id: UUID, body: ReasonRequest
) -> MergeResponse:
    """Refuse the merge, or withdraw one's own request."""
    return MergeResponse.of(await merging.reject(tx, patient_id, merge_id, reason=body.reason, caller=caller))


@router.post("/merges/{merge_id}/undo", permission=merging.UPDATE, operation_id="undoPatientMerge")
async def undo_merge(
    tx: Tx, caller: Caller, patient_id: UUID, merge_id: UUID, body: ReasonRequest
) -> MergeResponse:
    """Let both records be two people's again: each has its own identifiers and chart.

    What was written while they were one stays with the record that it was written to.
    """
    return MergeResponse.of(await merging.undo(tx, patient_id, merge_id, reason=body.reason, caller=caller))
