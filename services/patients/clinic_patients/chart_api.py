"""HTTP in: the chart of one patient. Patients reach only their own."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from clinic_shared.routing import Caller, ClinicRouter, Page, PageQuery, PageRequest, Tx, page_of
from fastapi import Query

from clinic_patients import chart, chart_store, results, store
from clinic_patients.chart_domain import EntryKind
from clinic_patients.chart_models import (
    ConsentRequest,
    ConsentResponse,
    ConsentStatement,
    ConsentWithHistory,
    EncounterRequest,
    EncounterResponse,
    PrescriptionRequest,
    PrescriptionResponse,
    ResultResponse,
    TimelineEntryResponse,
)

router = ClinicRouter(prefix="/v1/patients/{patient_id}", tags=["chart"])


@router.post("/encounters", permission="encounters.write", status_code=201, operation_id="recordEncounter")
async def record_encounter(
    tx: Tx, caller: Caller, patient_id: UUID, body: EncounterRequest
) -> EncounterResponse:
    """Write a visit into the chart. The caller is its practitioner."""
    encounter = await chart.record_encounter(tx, patient_id, body.command(), caller=caller)
    return EncounterResponse.of(encounter, await store.staff_names(tx, [encounter.practitioner_id]))


@router.get("/encounters", permission="chart.read", operation_id="listEncounters")
async def list_encounters(
    tx: Tx, caller: Caller, patient_id: UUID, page: PageQuery
) -> Page[EncounterResponse]:
    """List visits, the newest first."""
    found = await chart.list_encounters(
        tx, patient_id, caller=caller, after=_position(page), limit=page.limit + 1
    )
    names = await store.staff_names(tx, {e.practitioner_id for e in found})
    items = [EncounterResponse.of(e, names) for e in found]
    return page_of(items, page, key=lambda e: (e.started_at, e.encounter_id))


@router.post(
    "/prescriptions", permission="prescriptions.write", status_code=201, operation_id="issuePrescription"
)
async def issue_prescription(
    tx: Tx, caller: Caller, patient_id: UUID, body: PrescriptionRequest
) -> PrescriptionResponse:
    """Prescribe. The caller is the prescriber."""
    prescription = await chart.issue_prescription(tx, patient_id, body.command(), caller=caller)
    names = await store.staff_names(tx, [prescription.practitioner_id])
    return PrescriptionResponse.of(prescription, names)


@router.get("/prescriptions", permission="chart.read", operation_id="listPrescriptions")
async def list_prescriptions(
    tx: Tx, caller: Caller, patient_id: UUID, page: PageQuery
) -> Page[PrescriptionResponse]:
    """List prescriptions, the newest first."""
    found = await chart.list_prescriptions(
        tx, patient_id, caller=caller, after=_position(page), limit=page.limit + 1
    )
    names = await store.staff_names(tx, {p.practitioner_id for p in found})
    items = [PrescriptionResponse.of(p, names) for p in found]
    return page_of(items, page, key=lambda p: (p.issued_at, p.prescription_id))


@router.post("/consents", permission="consents.write", status_code=201, operation_id="stateConsent")
async def state_consent(tx: Tx, caller: Caller, patient_id: UUID, body: ConsentRequest) -> ConsentResponse:
    """Record that a consent was given or withdrawn. Each statement is a version of the consent
    for this kind and channel; saying the same again changes nothing.
    """
    return ConsentResponse.of(await chart.state_consent(tx, patient_id, body.command(), caller=caller))


@router.get("/consents", permission="consents.read", operation_id="listConsents")
async def list_consents(tx: Tx, caller: Caller, patient_id: UUID) -> list[ConsentWithHistory]:
    """List what the patient said last about each purpose, with everything said before."""
    consents = await chart.list_consents(tx, patient_id, caller=caller)
    versions = await chart_store.list_consent_versions(tx, [c.consent_id for c in consents])
    return [
        ConsentWithHistory(
            **vars(consent),
            history=[
                ConsentStatement.model_validate(said, from_attributes=True)
                for said in versions[consent.consent_id]
            ],
        )
        for consent in consents
    ]


@router.get("/observations", permission="results.read", operation_id="listObservations")
async def list_observations(
    tx: Tx, caller: Caller, patient_id: UUID, page: PageQuery
) -> Page[ResultResponse]:
    """List lab reports with their observations, the newest first, corrected versions beside the new ones.

    Patients see the newest released version of each report.
    """
    found = await results.list_results(tx, patient_id, caller=caller, after=page.after, limit=page.limit + 1)
    return page_of([ResultResponse.of(versions) for versions in found], page, key=lambda r: r.result_id)


@router.get("/timeline", permission="chart.read", operation_id="listTimeline")
async def list_timeline(
    tx: Tx,
    caller: Caller,
    patient_id: UUID,
    page: PageQuery,
    kind: Annotated[list[EntryKind] | None, Query(description="Only these kinds")] = None,
) -> Page[TimelineEntryResponse]:
    """List what happened to the patient across all departments, the newest first, each thing once.

    Results, messages and money appear to those whose roles include them.
    """
    found = await chart.list_timeline(
        tx,
        patient_id,
        caller=caller,
        kinds=kind or [],
        after=_position(page),
        limit=page.limit + 1,
    )
    items = [TimelineEntryResponse.of(entry) for entry in found]
    return page_of(items, page, key=lambda entry: (entry.occurred_at, entry.id))


def _position(page: PageRequest) -> tuple[datetime, UUID] | None:
    key = page.after_key(datetime, UUID)
    return (key[0], key[1]) if key else None
