"""HTTP in: what somebody has to answer for, and who is asked when they don't."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from clinic_shared.errors import NotFoundError
from clinic_shared.routing import Caller, ClinicRouter, IfMatch, Page, PageQuery, Tx, page_of
from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from clinic_lab_integration import obligation_store, obligations
from clinic_lab_integration.domain import ObservationState
from clinic_lab_integration.escalation import Duty, ObligationKind, ObligationStatus, OwnerRole
from clinic_lab_integration.models import Request
from clinic_lab_integration.obligation_store import Obligation

router = ClinicRouter(prefix="/v1/lab", tags=["lab-obligations"])

ACKNOWLEDGE = "critical-results.acknowledge"


class ObligationResponse(BaseModel):
    """`owner_id` is who is asked now; null: whoever is on call. `due_at` is when the next one is asked."""

    obligation_id: UUID
    kind: ObligationKind
    version: int
    status: ObligationStatus
    result_id: UUID
    result_version: int
    patient_id: UUID
    partner_id: UUID
    lab_order_id: UUID | None
    practitioner_id: UUID | None
    centre_id: UUID | None
    department_id: UUID | None
    owner_role: OwnerRole
    owner_id: UUID | None
    raised_at: datetime
    acknowledge_by_at: datetime
    due_at: datetime
    escalations: int
    acknowledged_at: datetime | None
    acknowledged_by: UUID | None
    comment: str | None

    @classmethod
    def of(cls, obligation: Obligation) -> "ObligationResponse":
        return cls(**{name: getattr(obligation, name) for name in ObligationResponse.model_fields})


class CriticalValue(BaseModel):
    """As the laboratory wrote it."""

    code: str | None
    system: str | None
    display: str | None
    value: str | None
    units: str | None
    reference_range: str | None
    interpretation: list[str]

    @classmethod
    def of(cls, observation: ObservationState) -> "CriticalValue":
        return cls(**{name: getattr(observation, name) for name in cls.model_fields})


class ObligationDetail(ObligationResponse):
    critical_values: list[CriticalValue]


class AcknowledgeRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"comment": "Potassium 7.1 mmol/l read back to the laboratory; patient called in"}]
        }
    )

    comment: str = Field(
        min_length=3, max_length=2000, description="Read-back: what you have understood, and what follows"
    )


class DutyRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"head_id": "01900000-0000-7000-8000-5a0000000001"}]}
    )

    head_id: UUID | None = Field(default=None, description="asked after whoever has ordered")
    on_call_id: UUID | None = Field(default=None, description="asked last, again and again")


class DutyResponse(BaseModel):
    department_id: UUID
    version: int
    head_id: UUID | None
    on_call_id: UUID | None

    @classmethod
    def of(cls, duty: Duty) -> "DutyResponse":
        return cls(**vars(duty))


@router.get("/obligations", permission=ACKNOWLEDGE, operation_id="listLabObligations")
async def list_obligations(
    tx: Tx,
    caller: Caller,
    page: PageQuery,
    kind: ObligationKind | None = None,
    waiting: Annotated[bool, Query(description="False: those that somebody has answered for")] = True,
    mine: Annotated[bool, Query(description="Only those that wait for the caller")] = False,
) -> Page[ObligationResponse]:
    """List critical, withdrawn and unordered results of the caller's places that somebody answers for."""
    found = await obligations.list_obligations(
        tx, caller=caller, kind=kind, waiting=waiting, mine=mine, after=page.after, limit=page.limit + 1
    )
    return page_of([ObligationResponse.of(o) for o in found], page, key=lambda o: o.obligation_id)


@router.get("/obligations/{obligation_id}", permission=ACKNOWLEDGE, operation_id="getLabObligation")
async def get_obligation(tx: Tx, caller: Caller, obligation_id: UUID) -> ObligationDetail:
    """Return an obligation with the critical values, as the laboratory wrote them."""
    obligation, critical = await obligations.read(tx, obligation_id, caller=caller)
    shown = ObligationResponse.of(obligation).model_dump()
    return ObligationDetail(**shown, critical_values=[CriticalValue.of(o) for o in critical])


@router.post(
    "/obligations/{obligation_id}/acknowledge",
    permission=ACKNOWLEDGE,
    operation_id="acknowledgeLabObligation",
)
async def acknowledge(
    tx: Tx, caller: Caller, obligation_id: UUID, body: AcknowledgeRequest
) -> ObligationResponse:
    """Answer for a result, reading back what you have understood. Whoever is first has answered."""
    return ObligationResponse.of(
        await obligations.acknowledge(tx, obligation_id, body.comment, caller=caller)
    )


@router.get("/duties", permission="lab-partners.read", operation_id="listLabDuties")
async def list_duties(tx: Tx) -> list[DutyResponse]:
    """List who answers for the departments' results."""
    return [DutyResponse.of(duty) for duty in await obligation_store.list_duties(tx)]


@router.get("/duties/{department_id}", permission="lab-partners.read", operation_id="getLabDuty")
async def get_duty(tx: Tx, department_id: UUID) -> DutyResponse:
    """Return who answers for a department's results."""
    duty = await obligation_store.find_duty(tx, department_id)
    if duty is None:
        raise NotFoundError
    return DutyResponse.of(duty)


@router.put("/duties/{department_id}", permission="lab-partners.manage", operation_id="setLabDuty")
async def set_duty(tx: Tx, department_id: UUID, body: DutyRequest, expected: IfMatch) -> DutyResponse:
    """Say who is asked about a department's results when whoever ordered them doesn't answer."""
    return DutyResponse.of(
        await obligations.set_duty(
            tx,
            department_id,
            head_id=body.head_id,
            on_call_id=body.on_call_id,
            expected_version=expected,
        )
    )
