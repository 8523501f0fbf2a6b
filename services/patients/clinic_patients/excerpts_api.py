"""HTTP in: as much of a patient's demographics as administrators and the cash desk need, which isn't all."""

from datetime import date, datetime
from typing import Annotated
from uuid import UUID

from clinic_shared.routing import Caller, ClinicRouter, CurrentRuntime, Tx
from pydantic import BaseModel, Field

from clinic_patients import registry
from clinic_patients.domain import Patient, PatientStatus
from clinic_patients.masking import masked_birth, masked_email, masked_name, masked_phone, masked_value
from clinic_patients.models import IdentifierBody, NameBody
from clinic_patients.settings import PatientsSettings

router = ClinicRouter(prefix="/v1/patients/{patient_id}", tags=["patients"])

MASKED = "patients.read-masked"
MINIMAL = "patients.read-minimal"


class MaskedPatientResponse(BaseModel):
    """Enough to tell which of two records is meant, and too little to know who it is."""

    patient_id: UUID
    version: int
    status: PatientStatus
    centre_id: UUID | None
    initials: str
    birth_year: int | None
    phones: Annotated[list[str], Field(description="The last two digits")]
    emails: Annotated[list[str], Field(description="The first letter and the top-level domain")]
    identifiers: Annotated[
        list[IdentifierBody], Field(description="Values of six and more characters by their last two")
    ]
    registered_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, patient: Patient) -> "MaskedPatientResponse":
        name = patient.name
        return cls(
            patient_id=patient.patient_id,
            version=patient.version,
            status=patient.status,
            centre_id=patient.centre_id,
            initials=masked_name(name.family, name.given, name.patronymic),
            birth_year=masked_birth(patient.birth_on),
            phones=[masked_phone(phone) for phone in patient.phones],
            emails=[masked_email(email) for email in patient.emails],
            identifiers=[
                IdentifierBody(authority=i.authority, type=i.type, value=masked_value(i.value))
                for i in patient.identifiers
            ],
            registered_at=patient.registered_at,
            updated_at=patient.updated_at,
        )


class PayerResponse(BaseModel):
    """Whom an invoice is made out to, and nothing by which to reach or treat them."""

    patient_id: UUID
    status: PatientStatus
    centre_id: UUID | None
    name: NameBody
    birth_on: date | None
    record_number: Annotated[str | None, Field(description="The network's own; none after an erasure")]

    @classmethod
    def of(cls, patient: Patient, *, authority: str) -> "PayerResponse":
        own = [i.value for i in patient.identifiers if i.authority == authority]
        return cls(
            patient_id=patient.patient_id,
            status=patient.status,
            centre_id=patient.centre_id,
            name=NameBody.of(patient.name),
            birth_on=patient.birth_on,
            record_number=next(iter(own), None),
        )


@router.get("/masked", permission=MASKED, operation_id="getMaskedPatient")
async def get_masked_patient(tx: Tx, caller: Caller, patient_id: UUID) -> MaskedPatientResponse:
    """Return initials, the year of birth and the ends of numbers, for whoever runs the platform and must tell records apart."""
    return MaskedPatientResponse.of(
        await registry.read_patient(tx, patient_id, caller=caller, permission=MASKED)
    )


@router.get("/payer", permission=MINIMAL, operation_id="getPayer")
async def get_payer(tx: Tx, caller: Caller, runtime: CurrentRuntime, patient_id: UUID) -> PayerResponse:
    """Return what an invoice needs: name, birth date and record number, of patients of the caller's places."""
    settings = runtime.settings
    assert isinstance(settings, PatientsSettings)  # noqa: S101  # the service's own `settings`
    patient = await registry.read_patient(tx, patient_id, caller=caller, permission=MINIMAL)
    return PayerResponse.of(patient, authority=settings.mrn_authority)
