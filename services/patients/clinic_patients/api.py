"""HTTP in: the registry. The chart's endpoints stand in `chart_api.py`."""

from datetime import date
from typing import Annotated
from uuid import UUID

from clinic_shared.errors import InvalidRequestError
from clinic_shared.routing import (
    Caller,
    ClinicRouter,
    CurrentRuntime,
    Idempotency,
    Page,
    PageQuery,
    PageRequest,
    RequiredIfMatch,
    Tx,
    page_of,
)
from fastapi import Depends, Query

from clinic_patients import merge_store, registry
from clinic_patients.models import ChangeRequest, PatientResponse, RegisterRequest, SearchRequest
from clinic_patients.registry import Criteria
from clinic_patients.settings import PatientsSettings

router = ClinicRouter(tags=["patients"])


async def _settings(runtime: CurrentRuntime) -> PatientsSettings:
    settings = runtime.settings
    assert isinstance(settings, PatientsSettings)  # noqa: S101  # the service's own `settings`
    return settings


Settings = Annotated[PatientsSettings, Depends(_settings)]


@router.post(
    "/v1/patients",
    permission="patients.register",
    idempotency=Idempotency.REQUIRED,
    status_code=201,
    operation_id="registerPatient",
)
async def register_patient(
    tx: Tx, caller: Caller, settings: Settings, body: RegisterRequest
) -> PatientResponse:
    """Register a person. They get a record number of the network (an identifier of type MR).

    409 `identifier-taken` lists every identifier that another patient has; nothing is stored then.
    """
    patient = await registry.register_patient(
        tx, body.demographics(), centre_id=body.centre_id, caller=caller, settings=settings
    )
    return PatientResponse.of(patient)


@router.post(
    "/v1/patients/search",
    permission="patients.search",
    idempotency=Idempotency.NONE,
    operation_id="searchPatients",
)
async def search_patients(
    tx: Tx, caller: Caller, settings: Settings, page: PageQuery, body: SearchRequest
) -> Page[PatientResponse]:
    """Find patients of your places or in your care. Case and accents, those of ё included, don't matter in names.

    Each patient on the page is recorded as disclosed to you, with the reason.
    """
    return await _search(tx, caller, settings, page, body.criteria())


@router.get("/v1/patients", permission="patients.search", operation_id="listPatients")
async def list_patients(
    tx: Tx,
    caller: Caller,
    settings: Settings,
    page: PageQuery,
    name: Annotated[str | None, Query(max_length=200)] = None,
    phone: Annotated[str | None, Query(max_length=40)] = None,
    birth_on: date | None = None,
    identifier: Annotated[str | None, Query(max_length=401, description="authority|value")] = None,
) -> Page[PatientResponse]:
    """Find patients, as `POST /v1/patients/search` does, which keeps names and numbers out of URLs.

    Intermediaries log URLs: use this form only where none stands between.
    """
    criteria = Criteria(
        name=name,
        phone=phone,
        birth_on=birth_on,
        identifier=_identifier(identifier) if identifier is not None else None,
    )
    return await _search(tx, caller, settings, page, criteria)


@router.get("/v1/patients/{patient_id}", permission="patients.read", operation_id="getPatient")
async def get_patient(tx: Tx, caller: Caller, patient_id: UUID) -> PatientResponse:
    """Return one patient; the ETag is the version. Patients reach only themselves, staff whom they have to do with."""
    patient = await registry.read_patient(tx, patient_id, caller=caller)
    return PatientResponse.of(patient, await merge_store.links_of(tx, patient_id))


@router.put("/v1/patients/{patient_id}", permission="patients.update", operation_id="changePatient")
async def change_patient(
    tx: Tx,
    caller: Caller,
    settings: Settings,
    patient_id: UUID,
    body: ChangeRequest,
    expected: RequiredIfMatch,
) -> PatientResponse:
    """Replace what is known of a patient; the network's own record number stays.

    Patients and doctors may change phones, e-mails and language; the rest is the registry's.
    """
    patient = await registry.change_patient(
        tx,
        patient_id,
        body.demographics(),
        status=body.patient_status,
        expected_version=expected,
        caller=caller,
        settings=settings,
    )
    return PatientResponse.of(patient)


async def _search(
    tx: Tx, caller: Caller, settings: PatientsSettings, page: PageRequest, criteria: Criteria
) -> Page[PatientResponse]:
    found = await registry.search_patients(
        tx, criteria, caller=caller, after=page.after, limit=page.limit, settings=settings
    )
    return page_of([PatientResponse.of(p) for p in found], page, key=lambda p: p.patient_id)


def _identifier(text: str) -> tuple[str, str]:
    authority, separator, value = text.partition("|")
    if not (authority and separator and value):
        raise InvalidRequestError("An identifier is searched as authority|value.")
    return authority, value
