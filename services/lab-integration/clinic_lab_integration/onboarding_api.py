"""HTTP in: how far a laboratory that is tried out has come, and whom it may send results about."""

from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

from clinic_shared.errors import ConcealedError
from clinic_shared.principal import Principal
from clinic_shared.routing import PUBLIC, ClinicRouter, CurrentContext, CurrentRuntime
from fastapi import Depends, Request
from pydantic import BaseModel

from clinic_lab_integration import onboarding, partners, sandbox
from clinic_lab_integration.onboarding import Case
from clinic_lab_integration.partners import SEND

router = ClinicRouter(prefix="/v1/lab", tags=["lab-integration"])

READ = "lab-partners.read"


class CaseResponse(BaseModel):
    name: str
    description: str
    state: Literal["passed", "open"]
    message_id: UUID | None
    passed_at: datetime | None

    @classmethod
    def of(cls, case: Case) -> "CaseResponse":
        return cls(**vars(case), state="open" if case.passed_at is None else "passed")


class OnboardingResponse(BaseModel):
    """Each case is passed by the first test message that shows it (`test_mode` of the partner)."""

    partner_id: UUID
    cases: list[CaseResponse]


class SandboxPatientResponse(BaseModel):
    """`number` goes into PID-3.1 with the authority POLYCLINIC, `order_number` into ORC-2 or OBR-2."""

    number: str
    order_number: str
    family_name: str
    given_name: str
    birth_on: date
    sex: str


class SandboxResponse(BaseModel):
    items: list[SandboxPatientResponse]


async def _caller(request: Request, runtime: CurrentRuntime) -> Principal:
    return await partners.authenticate(runtime, request.headers.getlist("authorization"))


LabOrStaff = Annotated[Principal, Depends(_caller)]


@router.get(
    "/partners/{partner_id}/onboarding",
    permission=PUBLIC,
    transactional=False,
    operation_id="getLabOnboarding",
)
async def get_onboarding(
    runtime: CurrentRuntime, context: CurrentContext, caller: LabOrStaff, partner_id: UUID
) -> OnboardingResponse:
    """Return the cases that a laboratory shows before it goes live. A laboratory sees its own."""
    if not (caller.may(READ) or (caller.may(SEND) and caller.subject == partner_id)):
        raise ConcealedError
    async with runtime.database.transaction(context) as tx:
        cases = await onboarding.list_cases(tx, partner_id)
    return OnboardingResponse(partner_id=partner_id, cases=[CaseResponse.of(case) for case in cases])


@router.get(
    "/sandbox-patients", permission=PUBLIC, transactional=False, operation_id="listLabSandboxPatients"
)
async def list_sandbox_patients(caller: LabOrStaff) -> SandboxResponse:
    """List the fictitious patients whom laboratories in test mode send results about."""
    if not (caller.may(READ) or caller.may(SEND)):
        raise ConcealedError
    return SandboxResponse(items=[SandboxPatientResponse(**vars(one)) for one in sandbox.PATIENTS])
