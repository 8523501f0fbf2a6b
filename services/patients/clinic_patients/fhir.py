"""The registry in FHIR R4's terms: read only (http://hl7.org/fhir/R4/patient.html)."""

from datetime import date
from typing import Literal
from uuid import UUID

from clinic_shared.etags import etag
from clinic_shared.routing import Caller, ClinicRouter, Tx
from fastapi import Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from clinic_patients import merge_store, registry
from clinic_patients.domain import Patient, PatientStatus, Sex
from clinic_patients.merge_domain import Links

router = ClinicRouter(prefix="/fhir/R4", tags=["fhir"])

MEDIA_TYPE = "application/fhir+json"
IDENTIFIER_TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203"


class FhirResponse(JSONResponse):
    media_type = MEDIA_TYPE


class Element(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Coding(Element):
    system: str
    code: str


class CodeableConcept(Element):
    coding: list[Coding]


class FhirIdentifier(Element):
    """`system` must be a URI; an authority that isn't one is named as the assigner."""

    type: CodeableConcept | None = None
    system: str | None = None
    value: str
    assigner: dict[Literal["display"], str] | None = None


class HumanName(Element):
    use: Literal["official"] = "official"
    family: str
    given: list[str] | None


class ContactPoint(Element):
    system: Literal["phone", "email"]
    value: str
    rank: int


class Communication(Element):
    language: dict[Literal["text"], str]


class PatientLink(Element):
    other: dict[Literal["reference"], str]
    type: Literal["replaced-by", "replaces"]


class FhirPatient(Element):
    resource_type: Literal["Patient"] = "Patient"
    id: UUID
    meta: dict[Literal["versionId", "lastUpdated"], str]
    active: bool
    identifier: list[FhirIdentifier]
    name: list[HumanName]
    telecom: list[ContactPoint] | None = None
    gender: Sex
    birth_date: date | None = None
    deceased_boolean: bool | None = None
    communication: list[Communication] | None = None
    link: list[PatientLink] | None = None

    @classmethod
    def of(cls, patient: Patient, links: Links) -> "FhirPatient":
        name = patient.name
        # R4 has no field for a patronymic, so it is a further given name; and no empty arrays.
        given = [part for part in (name.given, name.patronymic) if part]
        telecom = [
            ContactPoint(system=system, value=value, rank=rank)
            for system, values in (("phone", patient.phones), ("email", patient.emails))
            for rank, value in enumerate(values, start=1)
        ]
        return cls(
            id=patient.patient_id,
            meta={"versionId": str(patient.version), "lastUpdated": patient.updated_at.isoformat()},
            active=patient.status in {PatientStatus.ACTIVE, PatientStatus.DECEASED},
            identifier=[_identifier(i.authority, i.type, i.value) for i in patient.identifiers],
            name=[HumanName(family=name.family, given=given or None)],
            telecom=telecom or None,
            gender=patient.sex,
            birth_date=patient.birth_on,
            deceased_boolean=True if patient.status is PatientStatus.DECEASED else None,
            communication=[Communication(language={"text": patient.language})] if patient.language else None,
            link=_links(links) or None,
        )


@router.get(
    "/Patient/{patient_id}",
    permission="patients.read",
    operation_id="readFhirPatient",
    response_class=FhirResponse,
    response_model=FhirPatient,
)
async def read_patient(tx: Tx, caller: Caller, patient_id: UUID) -> Response:
    """Read one patient as a FHIR R4 resource."""
    patient = await registry.read_patient(tx, patient_id, caller=caller)
    links = await merge_store.links_of(tx, patient_id)
    content = FhirPatient.of(patient, links).model_dump(mode="json", by_alias=True, exclude_none=True)
    return FhirResponse(content, headers={"ETag": f"W/{etag(patient.version)}"})


def _links(links: Links) -> list[PatientLink]:
    named = [("replaced-by", links.replaced_by)] if links.replaced_by else []
    named += [("replaces", other) for other in links.replaces]
    return [
        PatientLink.model_validate({"other": {"reference": f"Patient/{other}"}, "type": kind})
        for kind, other in named
    ]


def _identifier(authority: str, type_code: str | None, value: str) -> FhirIdentifier:
    is_uri = "://" in authority or authority.startswith("urn:")
    coded = CodeableConcept(coding=[Coding(system=IDENTIFIER_TYPES, code=type_code)]) if type_code else None
    return FhirIdentifier(
        type=coded,
        system=authority if is_uri else None,
        value=value,
        assigner=None if is_uri else {"display": authority},
    )
