"""The registry in FHIR R4's terms."""

from clinic_shared.ids import uuid7

from .conftest import Clinic


async def test_a_patient_reads_as_fhir(clinic: Clinic) -> None:
    passport = {"authority": "urn:oid:1.2.3", "type": "PPN", "value": "0000 000001"}
    registered = await clinic.register(identifiers=[passport])
    answer = await clinic.call("GET", f"/fhir/R4/Patient/{registered['patient_id']}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/fhir+json"
    assert answer.headers["etag"] == 'W/"1"'
    patient = answer.json()
    own, foreign = patient["identifier"]
    assert own["assigner"] == {"display": "POLYCLINIC"}
    assert (foreign["system"], foreign["value"]) == ("urn:oid:1.2.3", "0000 000001")
    assert foreign["type"]["coding"][0]["code"] == "PPN"
    assert patient["name"] == [{"use": "official", "family": "Тестова", "given": ["Анна", "Примеровна"]}]
    assert (patient["resourceType"], patient["gender"], patient["birthDate"], patient["active"]) == (
        "Patient",
        "female",
        "1990-01-01",
        True,
    )
    assert "deceasedBoolean" not in patient


async def test_what_is_not_known_is_left_out_since_fhir_has_no_empty_arrays(clinic: Clinic) -> None:
    registered = await clinic.register(
        name={"family": "Тестова"}, phones=[], emails=[], language=None, birth_on=None
    )
    patient = (await clinic.call("GET", f"/fhir/R4/Patient/{registered['patient_id']}")).json()
    assert patient["name"] == [{"use": "official", "family": "Тестова"}]
    assert not {"telecom", "communication", "birthDate"} & set(patient)


async def test_somebody_else_s_resource_is_not_found(clinic: Clinic) -> None:
    registered = await clinic.register()
    path = f"/fhir/R4/Patient/{registered['patient_id']}"
    stranger = clinic.patient(str(uuid7()))
    assert (await clinic.call("GET", path, stranger)).status_code == 404
    assert (await clinic.call("GET", path, clinic.patient(registered["patient_id"]))).status_code == 200
    assert (await clinic.call("GET", f"/fhir/R4/Patient/{uuid7()}")).status_code == 404
