"""What referrals contributes to a patient's export."""

from clinic_shared.ids import uuid7
from clinic_shared.testing_exports import exported

from .conftest import Clinic


async def test_a_patients_referrals_and_nobody_elses(clinic: Clinic) -> None:
    referral_id = await clinic.create()
    [task] = (await exported(clinic.referrals, clinic.patient_id)).resources
    assert (task["resourceType"], task["id"], task["status"]) == ("Task", referral_id, "requested")
    assert task["description"] == "Fictitious question"
    assert task["for"] == {"reference": f"Patient/{clinic.patient_id}"}
    assert (await exported(clinic.referrals, uuid7())).resources == []
