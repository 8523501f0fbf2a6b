"""What lab-integration contributes to a patient's export."""

from clinic_shared.ids import uuid7
from clinic_shared.testing_exports import exported

from .conftest import Laboratory


async def test_a_patients_orders_and_nobody_elses(lab: Laboratory) -> None:
    patient_id = await lab.add_patient()
    order = await lab.order(patient_id, clinical_note="Fictitious note")
    [request] = (await exported(lab.lab, patient_id)).resources
    assert (request["resourceType"], request["id"]) == ("ServiceRequest", order["lab_order_id"])
    assert request["code"]["coding"] == [{"system": "http://loinc.org", "code": "58410-2"}]
    assert request["note"] == [{"text": "Fictitious note"}]
    assert (await exported(lab.lab, uuid7())).resources == []
