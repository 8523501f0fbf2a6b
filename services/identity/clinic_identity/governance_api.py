"""HTTP in: rights that end by themselves, roles that take two people, access reviews, logins that nobody uses."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from clinic_shared.errors import InvalidRequestError
from clinic_shared.routing import Caller, ClinicRouter, Idempotency, Tx
from clinic_shared.step_up import RECENT_AUTHENTICATION
from fastapi import Path
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import Row

from clinic_identity import access_reviews, dormancy, governance, staff
from clinic_identity.access_reviews import Outcome, Review
from clinic_identity.fields import Code, CurrentDesk, Request
from clinic_identity.staff_api import InitialPassword

router = ClinicRouter(prefix="/v1", tags=["identity"])

MANAGE, CERTIFY = "staff.manage", "access.certify"
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=3, max_length=500)]
RoleCode = Annotated[str, Path(max_length=64)]


class DeadlineIsOverError(InvalidRequestError):
    """A review whose deadline is over would take everybody's roles at once."""

    slug = "deadline-is-over"
    title = "The deadline lies in the past"
    fix = "Choose a later one: whoever certifies needs time."


class EndDateRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"ends_at": "2027-03-31T18:00:00Z", "reason": "Fictitious end"}]}
    )

    ends_at: Annotated[AwareDatetime | None, Field(description="null takes it back")]
    reason: Reason


class RoleExpiryRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"expires_at": "2027-03-31T18:00:00Z", "reason": "Fictitious stand-in"}]
        }
    )

    expires_at: Annotated[AwareDatetime | None, Field(description="null: for good")]
    reason: Reason


class RoleExpiryResponse(BaseModel):
    role: str
    expires_at: datetime
    reason: str
    set_by: UUID
    set_at: datetime


class EndsResponse(BaseModel):
    """When somebody leaves, and which of their roles end before."""

    staff_id: UUID
    ends_at: datetime | None
    reason: str | None
    roles: list[RoleExpiryResponse]


class RoleRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"role": "system-administrator", "reason": "Fictitious second administrator"}]
        }
    )

    role: Code
    reason: Reason


class RoleDecisionRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"approve": True}]})

    approve: bool
    reason: Reason | None = None


class RoleRequestResponse(BaseModel):
    decision_id: UUID
    staff_id: UUID
    role: str
    state: Literal["pending", "approved", "rejected"]
    reason: str
    requested_by: UUID
    requested_at: datetime
    expires_at: datetime
    decided_by: UUID | None
    decided_at: datetime | None
    decision_reason: str | None

    @classmethod
    def of(cls, row: Row[Any]) -> "RoleRequestResponse":
        return cls.model_validate(row, from_attributes=True)


class ReviewRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"due_at": "2099-12-31T18:00:00Z"}]})

    due_at: AwareDatetime


class CertifyRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"certify": True, "reason": "Fictitious: still needed"}]}
    )

    certify: Annotated[bool, Field(description="false revokes the role, now")]
    reason: Reason


class ReviewSummary(BaseModel):
    review_id: UUID
    department_id: UUID
    opened_by: UUID
    opened_at: datetime
    due_at: datetime
    closed_at: datetime | None


class ReviewedGrant(BaseModel):
    staff_id: UUID
    role: str
    outcome: Annotated[Outcome | None, Field(description="null: not decided; at `due_at` it lapses")]
    decided_by: UUID | None
    decided_at: datetime | None
    reason: str | None


class ReviewResponse(ReviewSummary):
    grants: list[ReviewedGrant]

    @classmethod
    def of(cls, found: Review) -> "ReviewResponse":
        summary = ReviewSummary.model_validate(found.review, from_attributes=True)
        grants = [ReviewedGrant.model_validate(item, from_attributes=True) for item in found.items]
        return cls(**summary.model_dump(), grants=grants)


class DormantResponse(BaseModel):
    """`disabled_at` null: the login still works, and closes unless it is used."""

    account_id: UUID
    last_used_at: datetime
    warned_at: datetime
    disabled_at: datetime | None


@router.get("/staff/{staff_id}/ends", permission="staff.read", operation_id="getStaffEnds")
async def get_ends(tx: Tx, staff_id: UUID) -> EndsResponse:
    """When a member of staff leaves, and which of their roles end by themselves."""
    leaves, roles = await governance.list_ends(tx, staff_id)
    return EndsResponse(
        staff_id=staff_id,
        ends_at=leaves.ends_at if leaves else None,
        reason=leaves.reason if leaves else None,
        roles=[RoleExpiryResponse.model_validate(row, from_attributes=True) for row in roles],
    )


@router.put(
    "/staff/{staff_id}/end-date",
    permission=MANAGE,
    dependencies=RECENT_AUTHENTICATION,
    operation_id="setStaffEndDate",
)
async def set_end_date(tx: Tx, caller: Caller, staff_id: UUID, body: EndDateRequest) -> EndsResponse:
    """Say when somebody leaves: then their sessions end and they can do nothing any more."""
    await governance.set_end_date(tx, staff_id, body.ends_at, body.reason, caller=caller)
    return await get_ends(tx, staff_id)


@router.put(
    "/staff/{staff_id}/roles/{role}/expiry",
    permission=MANAGE,
    dependencies=RECENT_AUTHENTICATION,
    operation_id="setRoleExpiry",
)
async def set_role_expiry(
    tx: Tx, caller: Caller, staff_id: UUID, role: RoleCode, body: RoleExpiryRequest
) -> EndsResponse:
    """Say until when somebody has one of their roles."""
    await governance.set_role_expiry(tx, staff_id, role, body.expires_at, body.reason, caller=caller)
    return await get_ends(tx, staff_id)


@router.post(
    "/staff/{staff_id}/role-requests",
    permission=MANAGE,
    status_code=201,
    dependencies=RECENT_AUTHENTICATION,
    operation_id="requestRole",
)
async def request_role(tx: Tx, caller: Caller, staff_id: UUID, body: RoleRequest) -> RoleRequestResponse:
    """Ask for a role that two people have to agree on, such as an administrator's. Open for a day."""
    return RoleRequestResponse.of(
        await governance.ask_for_role(tx, staff_id, body.role, body.reason, caller=caller)
    )


@router.get("/users/role-requests", permission=CERTIFY, operation_id="listRoleRequests")
async def list_role_requests(tx: Tx) -> list[RoleRequestResponse]:
    """List the roles that wait for a second person, at most 200."""
    return [RoleRequestResponse.of(row) for row in await governance.list_role_requests(tx)]


@router.post(
    "/users/role-requests/{decision_id}/decision",
    permission=CERTIFY,
    dependencies=RECENT_AUTHENTICATION,
    operation_id="decideRoleRequest",
)
async def decide_role_request(
    tx: Tx, caller: Caller, decision_id: UUID, body: RoleDecisionRequest
) -> RoleRequestResponse:
    """Agree or refuse, as neither who asked nor who gets the role."""
    return RoleRequestResponse.of(
        await governance.decide_on_role(
            tx, decision_id, approve=body.approve, reason=body.reason, caller=caller
        )
    )


@router.post(
    "/departments/{department_id}/access-reviews",
    permission=CERTIFY,
    status_code=201,
    operation_id="openAccessReview",
)
async def open_review(tx: Tx, caller: Caller, department_id: UUID, body: ReviewRequest) -> ReviewResponse:
    """Have every role of a department's staff certified; at `due_at` those that aren't are taken away."""
    if body.due_at <= tx.now:
        raise DeadlineIsOverError
    return ReviewResponse.of(await access_reviews.open_review(tx, department_id, body.due_at, caller=caller))


@router.get("/access-reviews", permission=CERTIFY, operation_id="listAccessReviews")
async def list_reviews(tx: Tx) -> list[ReviewSummary]:
    """List the reviews that are open, the most urgent first, at most 200."""
    rows = await access_reviews.list_open(tx)
    return [ReviewSummary.model_validate(row, from_attributes=True) for row in rows]


@router.get("/access-reviews/{review_id}", permission=CERTIFY, operation_id="getAccessReview")
async def get_review(tx: Tx, review_id: UUID) -> ReviewResponse:
    """Return a review with every grant and what was decided about it."""
    return ReviewResponse.of(await access_reviews.read(tx, review_id))


@router.post(
    "/access-reviews/{review_id}/grants/{staff_id}/{role}",
    permission=CERTIFY,
    operation_id="decideReviewedGrant",
)
async def decide_grant(
    tx: Tx, caller: Caller, review_id: UUID, staff_id: UUID, role: RoleCode, body: CertifyRequest
) -> ReviewResponse:
    """Certify one grant of a review, or revoke it now; nobody does so for themselves."""
    found = await access_reviews.decide(
        tx, review_id, staff_id, role, certify=body.certify, reason=body.reason, caller=caller
    )
    return ReviewResponse.of(found)


@router.get("/users/dormant", permission=MANAGE, operation_id="listDormantLogins")
async def list_dormant(tx: Tx) -> list[DormantResponse]:
    """List the staff's logins that are about to close because nobody uses them, or were closed."""
    return [
        DormantResponse.model_validate(row, from_attributes=True) for row in await dormancy.list_dormant(tx)
    ]


@router.post(
    "/staff/{staff_id}/reopen",
    permission=MANAGE,
    idempotency=Idempotency.NONE,
    dependencies=RECENT_AUTHENTICATION,
    operation_id="reopenDormantLogin",
)
async def reopen(tx: Tx, desk: CurrentDesk, caller: Caller, staff_id: UUID) -> InitialPassword:
    """Open a login that was closed because nobody used it; with an initial password to hand over."""
    invitation = await staff.reopen_login(tx, desk, staff_id, caller=caller)
    return InitialPassword(
        initial_password=invitation.initial_password,
        initial_password_expires_at=invitation.account.password_expires_at,
    )
