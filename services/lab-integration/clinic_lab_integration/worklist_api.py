"""HTTP in: what a person does about a group that nobody matches, beside attaching and discarding it."""

from datetime import date
from typing import Annotated
from uuid import UUID

from clinic_shared.routing import Caller, ClinicRouter, Tx
from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from clinic_lab_integration import undoing, worklist
from clinic_lab_integration.candidates import Candidate, Reason
from clinic_lab_integration.message_models import UnitResponse
from clinic_lab_integration.models import Request
from clinic_lab_integration.unit_ids import UNIT_ID, read_unit_id

router = ClinicRouter(prefix="/v1/lab/unmatched", tags=["lab-messages"])

WORK = "lab-worklist.manage"
UnitId = Annotated[str, Path(pattern=UNIT_ID, description="`unit_id` of the list")]


class CandidateResponse(BaseModel):
    """Somebody who may be meant. `reasons` also say what speaks against it; a name alone decides nothing."""

    patient_id: UUID
    family: str | None
    given: str | None
    patronymic: str | None
    birth_on: date | None
    sex: str | None
    likely: bool
    reasons: list[Reason]

    @classmethod
    def of(cls, candidate: Candidate) -> "CandidateResponse":
        return cls(
            patient_id=candidate.patient_id,
            likely=candidate.is_likely,
            reasons=list(candidate.reasons),
            **vars(candidate.person),
        )


class CreatePatientRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"not_the_same_as": ["01900000-0000-7000-8000-a00000000001"]}]}
    )

    not_the_same_as: list[UUID] = Field(
        default=[], max_length=100, description="candidates who were compared and are somebody else"
    )


class RejectRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "No such patient at our clinics"}]})

    reason: str = Field(min_length=3, max_length=500, description="the laboratory reads it")


class NoteRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"note": "Asked the laboratory by phone"}]})

    note: str = Field(min_length=3, max_length=2000)


class UndoRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "Attached to the wrong sister"}]})

    reason: str = Field(min_length=3, max_length=500)


@router.get("/{unit_id}/candidates", permission=WORK, operation_id="listUnmatchedCandidates")
async def list_candidates(tx: Tx, unit_id: UnitId) -> list[CandidateResponse]:
    """List patients who may be meant, the likeliest first, with the reasons. Nobody is attached by these."""
    found = await worklist.list_candidates(tx, read_unit_id(unit_id))
    return [CandidateResponse.of(candidate) for candidate in found]


@router.post("/{unit_id}/create-patient", permission=WORK, operation_id="createPatientOfUnmatchedResults")
async def create_patient(tx: Tx, caller: Caller, unit_id: UnitId, body: CreatePatientRequest) -> UnitResponse:
    """Register whom the laboratory names, and attach the results to them.

    409 `possible-duplicate` lists who may be the same person: attach to one of them, or rule them out.
    """
    return UnitResponse.of(
        await worklist.create_patient(
            tx, read_unit_id(unit_id), not_the_same_as=body.not_the_same_as, caller=caller
        )
    )


@router.post("/{unit_id}/reject", permission=WORK, operation_id="rejectUnmatchedResults")
async def reject(tx: Tx, caller: Caller, unit_id: UnitId, body: RejectRequest) -> UnitResponse:
    """Refuse these results: the laboratory reads the reason at its message and sends them otherwise."""
    return UnitResponse.of(await worklist.reject(tx, read_unit_id(unit_id), body.reason, caller=caller))


@router.post("/{unit_id}/note", permission=WORK, operation_id="noteUnmatchedResults")
async def note(tx: Tx, caller: Caller, unit_id: UnitId, body: NoteRequest) -> UnitResponse:
    """Leave it parked, with a note of what it waits for."""
    return UnitResponse.of(
        await worklist.leave_with_note(tx, read_unit_id(unit_id), body.note, caller=caller)
    )


@router.post("/{unit_id}/undo", permission=WORK, operation_id="undoUnmatchedDecision")
async def undo(tx: Tx, caller: Caller, unit_id: UnitId, body: UndoRequest) -> UnitResponse:
    """Take back an attachment or a discard: it is parked again, and withdrawn from the chart it was put into."""
    return UnitResponse.of(await undoing.undo(tx, read_unit_id(unit_id), body.reason, caller=caller))
