"""What notifications contributes to a patient's export."""

from clinic_shared.ids import uuid7
from clinic_shared.testing_exports import exported

from .conftest import Clinic


async def test_messages_to_a_patient_and_what_they_chose(clinic: Clinic) -> None:
    await clinic.book()
    await clinic.send_due()
    caller = clinic.notifications.principal("patient", patient_id=clinic.patient_id)
    chosen = await clinic.notifications.http.put(
        f"/v1/messages/preferences/{clinic.patient_id}",
        json={"channels": ["sms"], "opted_out": []},
        headers=clinic.notifications.headers(caller),
    )
    assert chosen.status_code == 200, chosen.text
    part = await exported(clinic.notifications, clinic.patient_id)
    [said] = [one for one in part.resources if one["category"] == [{"text": "appointment-confirmation"}]]
    assert said["subject"] == {"reference": f"Patient/{clinic.patient_id}"}
    assert said["payload"][0]["contentString"]
    assert part.others["message-preferences"][0]["channels"] == ["sms"]
    nobody = await exported(clinic.notifications, uuid7())
    assert (nobody.resources, nobody.others["message-preferences"]) == ([], [])
