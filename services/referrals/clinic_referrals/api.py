"""HTTP in: referring, answering, and a department's lists."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from clinic_shared.principal import Principal
from clinic_shared.routing import (
    Caller,
    ClinicRouter,
    Idempotency,
    IfMatch,
    Page,
    PageQuery,
    Tx,
    etag,
    page_of,
)
from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from clinic_referrals import referring
from clinic_referrals.domain import Priority, Referral, ReferralStatus

router = ClinicRouter(prefix="/v1/referrals", tags=["referrals"])

Code = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9-]*$")]
ClinicalText = Annotated[str, Field(min_length=1, max_length=10_000)]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CreateRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "patient_id": "01900000-0000-7000-8000-a00000000001",
                    "from_department_id": "01900000-0000-7000-8000-de0000000001",
                    "to_department_id": "01900000-0000-7000-8000-de0000000002",
                    "question": "Fictitious question: which diet?",
                }
            ]
        }
    )

    patient_id: UUID
    from_department_id: UUID
    to_department_id: UUID
    to_practitioner_id: Annotated[UUID | None, Field(description="Absent: anyone of the department")] = None
    service_code: Code | None = None
    priority: Priority = Priority.ROUTINE
    question: ClinicalText
    source_encounter_id: UUID | None = None


class DeclineRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"reason_code": "wrong-department", "comment": "Fictitious comment"}]}
    )

    reason_code: Code
    comment: ClinicalText | None = None


class ReportRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"outcome": "Fictitious outcome"}]})

    outcome: ClinicalText


class CloseRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"reason_code": "completed"}]})

    reason_code: Code = "completed"


class ReferralResponse(BaseModel):
    """`question`, `outcome` and `decline_comment` are clinical: null for who may not read charts."""

    referral_id: UUID
    version: int
    status: ReferralStatus
    patient_id: UUID
    priority: Priority
    from_centre_id: UUID
    from_department_id: UUID
    from_practitioner_id: UUID | None
    to_centre_id: UUID
    to_department_id: UUID
    to_practitioner_id: UUID | None
    service_code: str | None
    appointment_id: UUID | None
    encounter_id: UUID | None
    question: str | None
    outcome: str | None
    decline_comment: str | None
    decline_reason_code: str | None
    close_reason_code: str | None
    created_at: datetime
    accepted_at: datetime | None
    booked_at: datetime | None
    seen_at: datetime | None
    reported_at: datetime | None
    closed_at: datetime | None

    @classmethod
    def of(cls, referral: Referral, caller: Principal) -> "ReferralResponse":
        values = {name: getattr(referral, name) for name in cls.model_fields if hasattr(referral, name)}
        if not caller.may("chart.read"):
            values |= {"question": None, "outcome": None, "decline_comment": None}
        return cls(
            **values,
            from_centre_id=referral.sender.centre_id,
            from_department_id=referral.sender.department_id,
            to_centre_id=referral.receiver.centre_id,
            to_department_id=referral.receiver.department_id,
        )


@router.post(
    "",
    permission="referrals.create",
    idempotency=Idempotency.REQUIRED,
    status_code=201,
    operation_id="createReferral",
)
async def create_referral(tx: Tx, caller: Caller, body: CreateRequest) -> ReferralResponse:
    """Refer a patient to another department, or to one of its practitioners."""
    command = referring.CreateReferral(**body.model_dump())
    return ReferralResponse.of(await referring.create_referral(tx, command, caller=caller), caller)


@router.get("", permission="referrals.read", operation_id="listReferrals")
async def list_referrals(
    tx: Tx,
    caller: Caller,
    page: PageQuery,
    to_department_id: UUID | None = None,
    from_department_id: UUID | None = None,
    patient_id: UUID | None = None,
    status: ReferralStatus | None = None,
) -> Page[ReferralResponse]:
    """List referrals; with `to_department_id`, a department's inbound list."""
    found = await referring.list_referrals(
        tx,
        caller=caller,
        to_department_id=to_department_id,
        from_department_id=from_department_id,
        patient_id=patient_id,
        status=status,
        after=page.after,
        limit=page.limit + 1,
    )
    return page_of([ReferralResponse.of(r, caller) for r in found], page, key=lambda r: r.referral_id)


@router.get("/{referral_id}", permission="referrals.read", operation_id="getReferral")
async def get_referral(tx: Tx, caller: Caller, referral_id: UUID, response: Response) -> ReferralResponse:
    """Return one referral; both departments see the same. The ETag is its version, for If-Match."""
    referral = await referring.read_referral(tx, referral_id, caller=caller)
    response.headers["ETag"] = etag(referral.version)
    return ReferralResponse.of(referral, caller)


@router.post("/{referral_id}/accept", permission="referrals.answer", operation_id="acceptReferral")
async def accept_referral(tx: Tx, caller: Caller, referral_id: UUID, expected: IfMatch) -> ReferralResponse:
    """Take the referral: from now on this department owes an appointment, a visit and a report."""
    accepted = await referring.accept_referral(tx, referral_id, caller=caller, expected_version=expected)
    return ReferralResponse.of(accepted, caller)


@router.post("/{referral_id}/decline", permission="referrals.answer", operation_id="declineReferral")
async def decline_referral(
    tx: Tx, caller: Caller, referral_id: UUID, body: DeclineRequest, expected: IfMatch
) -> ReferralResponse:
    """Don't take the referral, and say why. The clinical need stays with the sender."""
    declined = await referring.decline_referral(
        tx,
        referral_id,
        reason_code=body.reason_code,
        comment=body.comment,
        caller=caller,
        expected_version=expected,
    )
    return ReferralResponse.of(declined, caller)


@router.post("/{referral_id}/report", permission="referrals.answer", operation_id="reportOnReferral")
async def report_on_referral(
    tx: Tx, caller: Caller, referral_id: UUID, body: ReportRequest, expected: IfMatch
) -> ReferralResponse:
    """Answer the sender's question, after the patient was seen."""
    reported = await referring.report_on_referral(
        tx, referral_id, outcome=body.outcome, caller=caller, expected_version=expected
    )
    return ReferralResponse.of(reported, caller)


@router.post("/{referral_id}/close", permission="referrals.create", operation_id="closeReferral")
async def close_referral(
    tx: Tx, caller: Caller, referral_id: UUID, body: CloseRequest, expected: IfMatch
) -> ReferralResponse:
    """Close the loop as its sender: answered and read, declined, or withdrawn."""
    closed = await referring.close_referral(
        tx, referral_id, reason_code=body.reason_code, caller=caller, expected_version=expected
    )
    return ReferralResponse.of(closed, caller)
