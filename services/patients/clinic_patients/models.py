"""What clients of the registry send and get. Requests refuse fields they don't know."""

import re
from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from clinic_shared.errors import RuleError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from clinic_patients.domain import (
    Identifier,
    Patient,
    PatientStatus,
    PersonName,
    Sex,
)
from clinic_patients.merge_domain import Links
from clinic_patients.registry import Criteria, Demographics

_EMAIL = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_{|}~-]+)*"
    r"@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}"
)
_MAX_LOCAL_PART = 64  # RFC 5321, 4.5.3.1.1


def _email(text: str) -> str:
    if not _EMAIL.fullmatch(text) or text.index("@") > _MAX_LOCAL_PART:
        raise RuleError("not an e-mail address")
    return text


def _text(max_length: int) -> StringConstraints:
    return StringConstraints(strip_whitespace=True, min_length=1, max_length=max_length)


Label = Annotated[str, _text(200)]
Phone = Annotated[str, _text(40)]
Email = Annotated[str, _text(254), AfterValidator(_email)]
Language = Annotated[str, Field(max_length=35, pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NameBody(Request):
    family: Label
    given: Label | None = None
    patronymic: Label | None = None

    @classmethod
    def of(cls, name: PersonName) -> "NameBody":
        return cls(family=name.family, given=name.given, patronymic=name.patronymic)


class IdentifierBody(Request):
    authority: Annotated[Label, Field(description="Who assigned it: HL7 namespace, OID or URI")]
    type: Annotated[Label | None, Field(description="HL7 table 0203, such as SS or PPN")] = None
    value: Label

    @classmethod
    def of(cls, identifier: Identifier) -> "IdentifierBody":
        return cls(authority=identifier.authority, type=identifier.type, value=identifier.value)


class DemographicsRequest(Request):
    name: NameBody
    birth_on: date | None = None
    sex: Annotated[Sex, Field(description="FHIR R4 administrative-gender")] = Sex.UNKNOWN
    phones: Annotated[
        list[Phone],
        Field(max_length=10, description="The preferred one first; national numbers are understood"),
    ] = []
    emails: Annotated[list[Email], Field(max_length=10, description="The preferred one first")] = []
    language: Annotated[Language | None, Field(description="BCP 47")] = None
    identifiers: Annotated[list[IdentifierBody], Field(max_length=20)] = []

    def demographics(self) -> Demographics:
        identifiers = {
            (i.authority, i.value): Identifier(authority=i.authority, type=i.type, value=i.value)
            for i in self.identifiers
        }
        return Demographics(
            name=PersonName(family=self.name.family, given=self.name.given, patronymic=self.name.patronymic),
            birth_on=self.birth_on,
            sex=self.sex,
            phones=tuple(self.phones),
            emails=tuple(dict.fromkeys(self.emails)),
            language=self.language,
            identifiers=tuple(identifiers.values()),
        )


_EXAMPLE: dict[str, Any] = {
    "name": {"family": "Тестова", "given": "Анна", "patronymic": "Примеровна"},
    "birth_on": "1990-01-01",
    "sex": "female",
    "phones": ["8 (000) 000-00-01"],
    "emails": ["anna.testova@example.org"],
    "language": "ru",
    "identifiers": [{"authority": "TEST-INSURANCE", "type": "NI", "value": "T-000001"}],
}


class RegisterRequest(DemographicsRequest):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{**_EXAMPLE, "centre_id": "01900000-0000-7000-8000-ce0000000001"}]},
    )

    centre_id: Annotated[UUID, Field(description="Where the patient is registered")]


class ChangeRequest(DemographicsRequest):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{**_EXAMPLE, "status": "active"}]}
    )

    status: Literal["active", "inactive", "deceased"] = "active"

    @property
    def patient_status(self) -> PatientStatus:
        return PatientStatus(self.status)


class PatientResponse(BaseModel):
    """`phones` are in E.164; `identifiers` include the network's own record number (type MR)."""

    patient_id: UUID
    version: int
    status: PatientStatus
    centre_id: UUID | None
    name: NameBody
    birth_on: date | None
    sex: Sex
    phones: list[str]
    emails: list[str]
    language: str | None
    identifiers: list[IdentifierBody]
    registered_at: datetime
    updated_at: datetime
    replaced_by: Annotated[UUID | None, Field(description="Of a merged record: the one to use")] = None
    replaces: Annotated[list[UUID], Field(description="Records merged into this one; not in lists")] = []

    @classmethod
    def of(cls, patient: Patient, links: Links | None = None) -> "PatientResponse":
        links = links or Links()
        return cls(
            patient_id=patient.patient_id,
            version=patient.version,
            status=patient.status,
            centre_id=patient.centre_id,
            name=NameBody.of(patient.name),
            birth_on=patient.birth_on,
            sex=patient.sex,
            phones=list(patient.phones),
            emails=list(patient.emails),
            language=patient.language,
            identifiers=[IdentifierBody.of(i) for i in patient.identifiers],
            registered_at=patient.registered_at,
            updated_at=patient.updated_at,
            replaced_by=links.replaced_by,
            replaces=list(links.replaces),
        )


class IdentifierCriterion(Request):
    authority: Label
    value: Label


class SearchRequest(Request):
    """Everything that is given must match."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "тестова ан", "birth_on": "1990-01-01"}]},
    )

    name: Annotated[
        Label | None,
        Field(description="Beginnings of family name, given name and patronymic, in any order"),
    ] = None
    phone: Annotated[Phone | None, Field(description="With country code or in the national format")] = None
    birth_on: date | None = None
    identifier: IdentifierCriterion | None = None

    def criteria(self) -> Criteria:
        identifier = self.identifier
        return Criteria(
            name=self.name,
            phone=self.phone,
            birth_on=self.birth_on,
            identifier=(identifier.authority, identifier.value) if identifier else None,
        )
