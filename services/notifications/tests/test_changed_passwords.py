"""People are told that their password was changed, also if they want no messages about it."""

from clinic_shared.ids import uuid7

from .conftest import PHONE, Clinic
from .test_staff import reach


async def test_the_owner_is_told_when(clinic: Clinic) -> None:
    staff_id = uuid7()
    await reach(clinic, staff_id, phone=PHONE, language="en", channels=["sms"])
    await clinic.notifications.deliver_example(
        "identity.password-changed.v1", staff_id=str(staff_id), patient_id=None
    )
    await clinic.send_due()
    [received] = await clinic.inbox()
    assert received["to"] == PHONE
    for part in ("2 March 2026", "06:00 UTC", "wasn't you"):
        assert part in received["text"]


async def test_a_patient_who_declines_such_messages_is_told_all_the_same(clinic: Clinic) -> None:
    registrar = clinic.notifications.headers(clinic.notifications.principal("registrar"))
    choice = {"channels": ["sms"], "opted_out": ["password-changed"]}
    path = f"/v1/messages/preferences/{clinic.patient_id}"
    saved = await clinic.notifications.http.put(path, json=choice, headers=registrar)
    assert saved.status_code == 200, saved.text
    await clinic.notifications.deliver_example(
        "identity.password-changed.v1", patient_id=str(clinic.patient_id)
    )
    await clinic.send_due()
    [received] = await clinic.inbox()
    assert received["to"] == PHONE
