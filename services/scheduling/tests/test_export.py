"""What scheduling contributes to a patient's export."""

from clinic_shared.testing_exports import exported

from .conftest import Clinic


async def test_a_patients_appointments_and_nobody_elses(clinic: Clinic) -> None:
    booked = (await clinic.book()).json()
    other = await clinic.add_patient()
    part = await exported(clinic.scheduling, clinic.patient_id)
    [appointment] = part.resources
    assert (appointment["resourceType"], appointment["id"]) == ("Appointment", booked["appointment_id"])
    assert (appointment["status"], appointment["start"][:10]) == ("booked", booked["starts_at"][:10])
    assert {"reference": f"Patient/{clinic.patient_id}"} in [
        one["actor"] for one in appointment["participant"]
    ]
    assert (await exported(clinic.scheduling, other)).resources == []
