"""HTTP in: opening a record in an emergency, and the privacy officer's work-list of that."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from clinic_shared.routing import Caller, ClinicRouter, Page, PageQuery, Tx, page_of
from clinic_shared.step_up import RECENT_AUTHENTICATION
from pydantic import BaseModel, ConfigDict, StringConstraints

from clinic_patients import break_glass, store
from clinic_patients.break_glass_domain import BreakGlass, BreakGlassState, ReasonCode, Verdict

router = ClinicRouter(prefix="/v1", tags=["break-glass"])

Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=10, max_length=2000)]


class BreakGlassRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"reason_code": "emergency", "reason": "Fictitious emergency"}]},
    )

    reason_code: ReasonCode
    reason: Words


class ReviewRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"verdict": "justified", "comment": "Fictitious comment"}]},
    )

    verdict: Verdict
    comment: Words


class BreakGlassResponse(BaseModel):
    """`requested` waits for a second clinician and opens nothing; `active` ends by itself at `ends_at`."""

    break_glass_id: UUID
    version: int
    state: BreakGlassState
    patient_id: UUID
    staff_id: UUID
    reason_code: ReasonCode
    reason: str
    requested_at: datetime
    approved_by: UUID | None
    started_at: datetime | None
    ends_at: datetime | None
    ended_at: datetime | None
    review_due_at: datetime | None
    overdue_at: datetime | None
    verdict: Verdict | None
    reviewed_at: datetime | None
    reviewed_by: UUID | None
    comment: str | None

    @classmethod
    def of(cls, value: BreakGlass) -> "BreakGlassResponse":
        return cls(**vars(value))


class OpenedRecordResponse(BaseModel):
    """Who opened the record, as its patient is told."""

    break_glass_id: UUID
    staff_name: str | None
    reason_code: ReasonCode
    started_at: datetime
    ended_at: datetime | None
    verdict: Verdict | None


@router.post(
    "/patients/{patient_id}/break-glass",
    permission="break-glass.start",
    status_code=201,
    operation_id="breakGlass",
    dependencies=RECENT_AUTHENTICATION,
)
async def start(tx: Tx, caller: Caller, patient_id: UUID, body: BreakGlassRequest) -> BreakGlassResponse:
    """Open the record of a patient who isn't in your care, for an hour.

    The privacy officer is told at once and judges it within three days; the patient is told after a day.
    After the fourth within a day, or two that wait for judgement, a second clinician has to approve.
    """
    opened = await break_glass.start(
        tx, patient_id, reason_code=body.reason_code, reason=body.reason, caller=caller
    )
    return BreakGlassResponse.of(opened)


@router.get(
    "/patients/{patient_id}/break-glass", permission="access-log.read", operation_id="listOpenedRecords"
)
async def list_of_patient(tx: Tx, caller: Caller, patient_id: UUID) -> list[OpenedRecordResponse]:
    """List who opened the record in an emergency, the newest first, at most 500; to patients a day later."""
    found = await break_glass.list_of_patient(tx, patient_id, caller=caller)
    names = await store.staff_names(tx, {one.staff_id for one in found})
    return [
        OpenedRecordResponse(
            break_glass_id=one.break_glass_id,
            staff_name=names.get(one.staff_id),
            reason_code=one.reason_code,
            started_at=one.started_at,
            ended_at=one.ended_at,
            verdict=one.verdict,
        )
        for one in found
        if one.started_at is not None
    ]


@router.post(
    "/break-glass/{break_glass_id}/approve",
    permission="break-glass.start",
    operation_id="approveBreakGlass",
    dependencies=RECENT_AUTHENTICATION,
)
async def approve(tx: Tx, caller: Caller, break_glass_id: UUID) -> BreakGlassResponse:
    """Agree to what a colleague has asked for; the record opens for them now."""
    return BreakGlassResponse.of(await break_glass.approve(tx, break_glass_id, caller=caller))


@router.post(
    "/break-glass/{break_glass_id}/end", permission="break-glass.start", operation_id="endBreakGlass"
)
async def end(tx: Tx, caller: Caller, break_glass_id: UUID) -> BreakGlassResponse:
    """Close the record before its hour is over, as whoever opened it."""
    return BreakGlassResponse.of(await break_glass.end(tx, break_glass_id, caller=caller))


@router.get("/break-glass", permission="break-glass.review", operation_id="listBreakGlass")
async def list_for_review(
    tx: Tx, page: PageQuery, state: BreakGlassState | None = None
) -> Page[BreakGlassResponse]:
    """List what was opened and isn't judged, the longest waiting first; or what is in one state."""
    key = page.after_key(datetime, UUID)
    found = await break_glass.list_for_review(
        tx, state=state, after=(key[0], key[1]) if key else None, limit=page.limit + 1
    )
    items = [BreakGlassResponse.of(one) for one in found]
    return page_of(items, page, key=lambda one: (one.requested_at, one.break_glass_id))


@router.post(
    "/break-glass/{break_glass_id}/review", permission="break-glass.review", operation_id="reviewBreakGlass"
)
async def review(tx: Tx, caller: Caller, break_glass_id: UUID, body: ReviewRequest) -> BreakGlassResponse:
    """Judge whether it was an emergency. Unjustified: they can't do it again for 90 days."""
    judged = await break_glass.review(
        tx, break_glass_id, verdict=body.verdict, comment=body.comment, caller=caller
    )
    return BreakGlassResponse.of(judged)
