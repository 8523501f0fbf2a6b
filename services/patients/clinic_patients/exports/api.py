"""HTTP in: asking for all that is held about a patient, and taking it out."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, cast
from uuid import UUID

from clinic_shared.context import Context
from clinic_shared.database import Transaction
from clinic_shared.errors import InvalidRequestError
from clinic_shared.jurisdictions import Country
from clinic_shared.routing import Caller, ClinicRouter, CurrentContext, CurrentRuntime, Tx
from clinic_shared.service import Runtime
from clinic_shared.step_up import RECENT_AUTHENTICATION
from clinic_shared.topology import installed
from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from clinic_patients.exports import exporting
from clinic_patients.exports.domain import Export, ExportState, PartState, Purpose
from clinic_patients.exports.exporting import PERMISSION, Asked, Taken
from clinic_patients.exports.package import bundle
from clinic_patients.exports.paper import typeset
from clinic_patients.fhir import MEDIA_TYPE
from clinic_patients.retention import profiles
from clinic_patients.settings import PatientsSettings

router = ClinicRouter(prefix="/v1/patients/{patient_id}/exports", tags=["exports"])

PDF = "application/pdf"
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=10, max_length=500)]


class PurposeNeededError(InvalidRequestError):
    """Staff take out a whole record for a purpose, or for a recipient outside, and that stands in the audit."""

    slug = "purpose-needed"
    title = "Say what the export is for"
    fix = (
        "Send `purpose` and a `reason` of at least ten characters, and the `recipient` if it is neither the patient's"
        " nor the law's; patients need none of these for their own."
    )


class ExportRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"purpose": "PATRQT", "reason": "Fictitious request in writing, number 1/2026"}]
        },
    )

    purpose: Annotated[
        Purpose,
        Field(
            description="HL7 v3 ActReason: PATRQT, the patient asked for it; HLEGAL, the law does; TREAT, COVERAGE,"
            " HRESCH: for a recipient outside, with the patient's consent of the kind `sharing`. A patient's is PATRQT"
        ),
    ] = Purpose.PATIENT_REQUEST
    reason: Annotated[
        Reason | None, Field(description="kept, shown and audited: no patient data here; needed of staff")
    ] = None
    recipient: Annotated[
        str | None, Field(min_length=3, max_length=200, description="the organisation that it is handed to")
    ] = None
    recipient_country: Annotated[
        Country | None,
        Field(description="ISO 3166-1: where the recipient is, if not in the network's own country"),
    ] = None

    def asked(self, *, by_patient: bool) -> Asked:
        """Raises PurposeNeededError."""
        if by_patient:
            return Asked(purpose=Purpose.PATIENT_REQUEST, reason=self.reason, recipient=None)
        if self.reason is None or (self.purpose.needs_consent and self.recipient is None):
            raise PurposeNeededError
        return Asked(purpose=self.purpose, reason=self.reason, recipient=self.recipient)


class ExportResponse(BaseModel):
    """`incomplete`: some services didn't answer in time; they are `missing`, and still get in if they do."""

    export_id: UUID
    patient_id: UUID
    state: ExportState
    purpose: Purpose
    reason: str | None
    recipient: str | None
    requested_at: datetime
    completed_at: datetime | None
    gather_until: datetime
    answer_due_at: Annotated[datetime, Field(description="by the law of the deployment's jurisdiction")]
    expires_at: datetime
    parts: Annotated[dict[str, PartState], Field(description="by service: what became of its part")]

    @classmethod
    def of(cls, export: Export, parts: Mapping[str, PartState]) -> "ExportResponse":
        told = {name: getattr(export, name) for name in cls.model_fields if name != "parts"}
        return cls(**told, parts=dict(parts))


@router.post(
    "",
    permission=PERMISSION,
    status_code=202,
    operation_id="requestPatientExport",
    dependencies=RECENT_AUTHENTICATION,
)
async def request_export(
    tx: Tx, caller: Caller, runtime: CurrentRuntime, response: Response, patient_id: UUID, body: ExportRequest
) -> ExportResponse:
    """Ask for everything that the network holds about a patient.

    Every service contributes its part within minutes; `Location` says where to ask how far that is. What is ready
    can be taken out for seven days, by whoever asked. 403 `transfer-not-allowed`: the law of the deployment's
    jurisdiction doesn't let it go to the recipient's country.
    """
    settings = cast("PatientsSettings", runtime.settings)
    if body.recipient_country is not None and caller.kind != "patient":
        settings.require_transfer(body.recipient_country)
    export = await exporting.ask(
        tx,
        patient_id,
        body.asked(by_patient=caller.kind == "patient"),
        installed=installed(runtime),
        answered_within=timedelta(days=profiles()[settings.jurisdiction].request_days),
        caller=caller,
    )
    response.headers["Location"] = f"/v1/patients/{patient_id}/exports/{export.export_id}"
    return ExportResponse.of(export, await exporting.states_of(tx, export))


@router.get("", permission=PERMISSION, operation_id="listPatientExports")
async def list_exports(tx: Tx, caller: Caller, patient_id: UUID) -> list[ExportResponse]:
    """List one's own requests about this patient, the newest first, at most 100."""
    found = await exporting.list_own(tx, patient_id, caller=caller)
    return [ExportResponse.of(one, await exporting.states_of(tx, one)) for one in found]


@router.get("/{export_id}", permission=PERMISSION, operation_id="getPatientExport")
async def get_export(tx: Tx, caller: Caller, patient_id: UUID, export_id: UUID) -> ExportResponse:
    """Say how far an export is, and what is missing from it."""
    export = await exporting.read(tx, patient_id, export_id, caller=caller)
    return ExportResponse.of(export, await exporting.states_of(tx, export))


@router.get(
    "/{export_id}/bundle",
    permission=PERMISSION,
    transactional=False,
    operation_id="takeOutPatientExport",
    dependencies=RECENT_AUTHENTICATION,
    response_class=Response,
    responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "object"}}}}},
)
async def take_out_bundle(
    runtime: CurrentRuntime, context: CurrentContext, patient_id: UUID, export_id: UUID
) -> Response:
    """Return the export as a FHIR R4 Bundle of type collection.

    What FHIR has no resource for is in DocumentReferences, as JSON; the first one, `manifest`, says what is missing.
    """
    taken = await _take_out(runtime, context, patient_id, export_id, form="bundle")
    base_url = f"{runtime.settings.token_issuer}/fhir/R4"
    content = await asyncio.to_thread(bundle, taken, base_url=base_url)
    return _download(content, MEDIA_TYPE, f"record-{export_id}.json")


@router.get(
    "/{export_id}/document",
    permission=PERMISSION,
    transactional=False,
    operation_id="takeOutPatientExportDocument",
    dependencies=RECENT_AUTHENTICATION,
    response_class=Response,
    responses={200: {"content": {PDF: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def take_out_document(
    runtime: CurrentRuntime, context: CurrentContext, patient_id: UUID, export_id: UUID
) -> Response:
    """Return the export as a PDF. Of a very long record it says how many entries are in the Bundle only."""
    taken = await _take_out(runtime, context, patient_id, export_id, form="document")
    return _download(await asyncio.to_thread(typeset, taken), PDF, f"record-{export_id}.pdf")


async def _take_out(
    runtime: Runtime, context: Context, patient_id: UUID, export_id: UUID, *, form: str
) -> Taken:
    # Composing takes its time, and a connection must not wait for it.
    tx: Transaction
    async with runtime.database.transaction(context) as tx:
        return await exporting.take_out(tx, patient_id, export_id, form=form, caller=context.principal)


def _download(content: bytes, media_type: str, name: str) -> Response:
    headers: dict[str, Any] = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "no-store",
    }
    return Response(content, media_type=media_type, headers=headers)
