"""HTTP in: the privacy officer's record of breaches, whom they affect, and what has been told to whom."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from clinic_shared.errors import RuleError
from clinic_shared.routing import ClinicRouter, Page, PageQuery, Tx, page_of
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from clinic_audit import breaches
from clinic_audit.breach_domain import Breach, BreachState, Clock, Scope

router = ClinicRouter(prefix="/v1/audit/breaches", tags=["audit"])

MANAGE = "breaches.manage"
Jurisdiction = Literal["gdpr", "hipaa", "152-fz"]
Words = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=10, max_length=2000),
    Field(description="no patient data here"),
]


class ScopeBody(BaseModel):
    """The accesses that it is about, as the log has them; `until` is the first instant after."""

    model_config = ConfigDict(extra="forbid")

    since: AwareDatetime
    until: AwareDatetime
    actor: UUID | None = None
    action: Annotated[str | None, Field(pattern="^[CRUDE]$")] = None
    service: Annotated[str | None, Field(max_length=50)] = None
    resource_type: Annotated[str | None, Field(max_length=100)] = None

    @model_validator(mode="after")
    def _has_a_length(self) -> "ScopeBody":
        if self.since >= self.until:
            raise RuleError("`until` is after `since`.")
        return self


class BreachRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "jurisdiction": "gdpr",
                    "summary": "Fictitious: an account was used by somebody else",
                    "discovered_at": "2026-03-01T08:00:00Z",
                    "scope": {"since": "2026-02-28T00:00:00Z", "until": "2026-03-01T00:00:00Z"},
                }
            ]
        },
    )

    jurisdiction: Jurisdiction
    summary: Words
    discovered_at: AwareDatetime
    scope: ScopeBody
    owner_id: Annotated[UUID | None, Field(description="who sees to it; by default who records it")] = None


class NoticeRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"note": "Fictitious notice, number 1/2026"}]}
    )

    note: Annotated[Words, Field(description="its reference, or why it isn't due")]


class ConclusionRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"conclusion": "Fictitious: passwords were replaced"}]},
    )

    conclusion: Words


class ClockResponse(BaseModel):
    name: str
    basis: str
    due_at: datetime
    met_at: datetime | None
    met_by: UUID | None
    note: str | None
    overdue_at: Annotated[datetime | None, Field(description="when it was found that nobody had met it")]

    @classmethod
    def of(cls, clock: Clock) -> "ClockResponse":
        return cls(**vars(clock))


class BreachResponse(BaseModel):
    """`closing` waits for a second privacy officer."""

    breach_id: UUID
    version: int
    state: BreachState
    jurisdiction: str
    summary: str
    scope: ScopeBody
    discovered_at: datetime
    recorded_at: datetime
    recorded_by: UUID
    owner_id: UUID
    clocks: list[ClockResponse]
    close_asked_by: UUID | None
    close_asked_at: datetime | None
    conclusion: str | None
    closed_by: UUID | None
    closed_at: datetime | None

    @classmethod
    def of(cls, found: Breach) -> "BreachResponse":
        nested = {
            "scope": ScopeBody(**vars(found.scope)),
            "clocks": [ClockResponse.of(clock) for clock in found.clocks],
        }
        return cls(**vars(found) | nested)


class AffectedResponse(BaseModel):
    patient_id: UUID
    accesses: int
    first_at: datetime
    last_at: datetime


@router.post("", permission=MANAGE, status_code=201, operation_id="recordBreach")
async def record(tx: Tx, body: BreachRequest) -> BreachResponse:
    """Record a breach of personal data. The law's clocks run from its discovery."""
    found = await breaches.record(
        tx,
        jurisdiction=body.jurisdiction,
        summary=body.summary,
        scope=Scope(**body.scope.model_dump()),
        discovered_at=body.discovered_at,
        owner_id=body.owner_id,
    )
    return BreachResponse.of(found)


@router.get("", permission=MANAGE, operation_id="listBreaches")
async def list_breaches(tx: Tx, state: BreachState | None = None) -> list[BreachResponse]:
    """List what isn't closed, or what is in one state, the oldest first, at most 200."""
    return [BreachResponse.of(one) for one in await breaches.list_some(tx, state=state)]


@router.get("/{breach_id}", permission=MANAGE, operation_id="getBreach")
async def get_breach(tx: Tx, breach_id: UUID) -> BreachResponse:
    """Return a breach with its clocks."""
    return BreachResponse.of(await breaches.read(tx, breach_id))


@router.get("/{breach_id}/affected", permission=MANAGE, operation_id="listAffectedPatients")
async def list_affected(tx: Tx, page: PageQuery, breach_id: UUID) -> Page[AffectedResponse]:
    """List whose records were reached within the breach's scope, by id: what the log proves, refusals left out."""
    found = await breaches.affected(tx, breach_id, after=page.after, limit=page.limit + 1)
    items = [AffectedResponse(**vars(one)) for one in found]
    return page_of(items, page, key=lambda one: one.patient_id)


@router.post("/{breach_id}/clocks/{name}/meet", permission=MANAGE, operation_id="meetBreachClock")
async def meet(tx: Tx, breach_id: UUID, name: str, body: NoticeRequest) -> BreachResponse:
    """Record that a notice was given, or why it isn't due. A later note replaces an earlier one."""
    return BreachResponse.of(await breaches.meet(tx, breach_id, name, note=body.note))


@router.post("/{breach_id}/ask-to-close", permission=MANAGE, operation_id="askToCloseBreach")
async def ask_to_close(tx: Tx, breach_id: UUID, body: ConclusionRequest) -> BreachResponse:
    """Say what came of it, once every notice is recorded. Another privacy officer closes it."""
    return BreachResponse.of(await breaches.ask_to_close(tx, breach_id, conclusion=body.conclusion))


@router.post("/{breach_id}/reopen", permission=MANAGE, operation_id="reopenBreach")
async def reopen(tx: Tx, breach_id: UUID) -> BreachResponse:
    """Refuse, or take back, what was concluded: there is something left to do."""
    return BreachResponse.of(await breaches.reopen(tx, breach_id))


@router.post("/{breach_id}/close", permission=MANAGE, operation_id="closeBreach")
async def close(tx: Tx, breach_id: UUID) -> BreachResponse:
    """Close it, as a second privacy officer. Final."""
    return BreachResponse.of(await breaches.close(tx, breach_id))
