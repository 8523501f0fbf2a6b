"""HTTP in: a patient's request to be forgotten, and what keeps it from being granted."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from clinic_shared.routing import ClinicRouter, CurrentRuntime, Idempotency, Tx
from pydantic import BaseModel, ConfigDict, Field

from clinic_patients import erasing
from clinic_patients.erasing import Outcome
from clinic_patients.protection import RetentionClass
from clinic_patients.retention import profiles
from clinic_patients.settings import PatientsSettings

router = ClinicRouter(prefix="/v1/patients/{patient_id}", tags=["patients"])

ERASE = "patients.erase"
Reason = Annotated[
    str, Field(min_length=3, max_length=500, description="kept, shown and audited: no patient data here")
]


class ErasureRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"classes": ["contact"], "reason": "Asked for in writing"}]},
    )

    classes: Annotated[list[RetentionClass], Field(min_length=1, max_length=10)]
    reason: Reason


class ErasureOutcome(BaseModel):
    retention_class: RetentionClass
    erased: bool
    because: Annotated[str, Field(description="the law, or what keeps the data")]
    until: Annotated[datetime | None, Field(description="when the data may be erased, if that is known")]

    @classmethod
    def of(cls, outcome: Outcome) -> "ErasureOutcome":
        verdict = outcome.verdict
        return cls(
            retention_class=outcome.retention_class,
            erased=verdict.may_be_erased,
            because=verdict.because,
            until=verdict.until,
        )


class ErasureResponse(BaseModel):
    jurisdiction: str
    outcomes: list[ErasureOutcome]


class HoldRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"reason": "Case 1/2026 before the court"}]}
    )

    reason: Reason


class HoldResponse(BaseModel):
    hold_id: UUID


class LiftedResponse(BaseModel):
    lifted_at: datetime


@router.post("/erasures", permission=ERASE, operation_id="erasePatientData")
async def erase(tx: Tx, runtime: CurrentRuntime, patient_id: UUID, body: ErasureRequest) -> ErasureResponse:
    """Erase classes of a patient's data as far as the law lets them go, and say which and why.

    What is erased can't be brought back: its key is destroyed, and a restored backup is erased again. Other services
    hear of the record without it.
    """
    settings = runtime.settings
    assert isinstance(settings, PatientsSettings)  # noqa: S101  # the service's own `settings`
    outcomes = await erasing.erase_on_request(
        tx,
        patient_id,
        body.classes,
        reason=body.reason,
        profile=profiles()[settings.jurisdiction],
        everything_on_hold=settings.legal_hold,
    )
    return ErasureResponse(
        jurisdiction=settings.jurisdiction, outcomes=[ErasureOutcome.of(one) for one in outcomes]
    )


@router.post("/legal-holds", permission=ERASE, status_code=201, operation_id="placeLegalHold")
async def place_hold(tx: Tx, patient_id: UUID, body: HoldRequest) -> HoldResponse:
    """Keep everything of a patient, whatever is asked, until the hold is lifted."""
    return HoldResponse(hold_id=await erasing.place_hold(tx, patient_id, reason=body.reason))


@router.post(
    "/legal-holds/{hold_id}/lift",
    permission=ERASE,
    idempotency=Idempotency.NONE,
    operation_id="liftLegalHold",
)
async def lift_hold(tx: Tx, patient_id: UUID, hold_id: UUID, body: HoldRequest) -> LiftedResponse:
    """Lift a hold. Others on the same patient go on holding."""
    return LiftedResponse(lifted_at=await erasing.lift_hold(tx, patient_id, hold_id, reason=body.reason))
