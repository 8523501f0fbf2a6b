"""What the law lets go is erased by its key, stays erased, and nothing else goes with it."""

from datetime import timedelta
from typing import Any

import pytest
from clinic_patients import tables
from clinic_patients.erasing import erase
from clinic_patients.protection import RetentionClass
from clinic_patients.retention import Rule, judge, profiles
from clinic_shared.ids import uuid7
from clinic_shared.testing import MONDAY
from sqlalchemy import text

from .conftest import Clinic

PHONE, EMAIL = "+70000009911", "kanareika@example.org"
CARD = {"authority": "TEST-INSURANCE", "type": "NI", "value": "T-1"}


@pytest.fixture
async def registered(clinic: Clinic) -> dict[str, Any]:
    return await clinic.register(phones=[PHONE], emails=[EMAIL], identifiers=[CARD])


async def asked(
    clinic: Clinic, patient_id: str, *classes: str, role: str = "privacy-officer"
) -> list[dict[str, Any]]:
    body = {"classes": classes, "reason": "asked for in writing"}
    answer = await clinic.call("POST", f"/v1/patients/{patient_id}/erasures", role, body)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["outcomes"])


async def test_contacts_are_erased_and_who_the_patient_is_stays(
    clinic: Clinic, registered: dict[str, Any]
) -> None:
    patient_id = registered["patient_id"]
    contact, identity = await asked(clinic, patient_id, "contact", "identity")
    assert (contact["erased"], identity["erased"]) == (True, False)
    assert identity["because"].startswith("GDPR 17(3)")
    assert identity["until"] is not None
    left = await clinic.read(f"/v1/patients/{patient_id}", "registrar")
    assert (left["phones"], left["emails"], left["version"]) == ([], [], 2)
    assert left["identifiers"] == registered["identifiers"]
    assert await clinic.find(phone=PHONE) == []
    keys = {row["retention_class"]: row["data_key"] for row in await clinic.rows(tables.patient_key)}
    assert keys["contact"] is None
    assert keys["identity"] is not None


async def test_the_event_log_forgets_too_and_others_are_told(
    clinic: Clinic, registered: dict[str, Any]
) -> None:
    await asked(clinic, registered["patient_id"], "contact")
    [first] = await clinic.patients.events("patients.patient-registered.v1")
    [second] = await clinic.patients.events("patients.patient-updated.v1")
    assert PHONE not in str(first.private)
    assert "phones" not in first.private
    assert first.private["name"]["family"] == "Тестова"
    assert EMAIL not in str(second.private)


async def test_an_erasure_stands_in_the_audit_log_which_is_its_ledger(
    clinic: Clinic, registered: dict[str, Any]
) -> None:
    await asked(clinic, registered["patient_id"], "contact", "identity")
    erased, refused = (await clinic.audited())[-2:]
    if erased["action"] != "D":
        erased, refused = refused, erased
    assert (erased["action"], erased["entity"]["type"]) == ("D", "PatientErasure")
    assert erased["details"] == {"class": "contact"}
    assert (refused["action"], refused["details"]) == ("E", {"class": "identity"})
    [row] = await clinic.rows(tables.erasure)
    assert erased["entity"]["id"] == str(row["erasure_id"])


async def test_a_legal_hold_keeps_everything_until_it_is_lifted(
    clinic: Clinic, registered: dict[str, Any]
) -> None:
    path = f"/v1/patients/{registered['patient_id']}/legal-holds"
    reason = {"reason": "Case 1/2026"}
    hold = (await clinic.call("POST", path, "privacy-officer", reason)).json()
    [outcome] = await asked(clinic, registered["patient_id"], "contact")
    assert (outcome["erased"], outcome["because"]) == (False, "legal hold")
    lift = f"{path}/{hold['hold_id']}/lift"
    assert (await clinic.call("POST", lift, "privacy-officer", reason)).status_code == 200
    assert (await clinic.call("POST", lift, "privacy-officer", reason)).status_code == 404
    [outcome] = await asked(clinic, registered["patient_id"], "contact")
    assert outcome["erased"]


async def test_who_comes_back_is_kept_under_a_new_key(clinic: Clinic, registered: dict[str, Any]) -> None:
    patient_id = registered["patient_id"]
    await asked(clinic, patient_id, "contact")
    body = clinic.person(phones=["+70000009912"], identifiers=[CARD])
    del body["centre_id"]
    changed = await clinic.call("PUT", f"/v1/patients/{patient_id}", body=body, If_Match='"2"')
    assert changed.status_code == 200, changed.text
    assert await clinic.find(phone="+70000009912") == [patient_id]
    rows = await clinic.rows(tables.patient)
    assert all(row["contacts"] is not None and row["phones"] == [] for row in rows)


async def test_after_a_restore_an_erasure_is_done_again_and_only_once(
    clinic: Clinic, registered: dict[str, Any]
) -> None:
    erasure_id = uuid7()
    patient_id = (await clinic.rows(tables.patient))[0]["patient_id"]
    for done in (True, False):
        async with clinic.patients.runtime.database.transaction() as tx:
            again = await erase(
                tx, patient_id, RetentionClass.CONTACT, erasure_id=erasure_id, reason="replayed"
            )
        assert again is done
    assert (await clinic.read(f"/v1/patients/{patient_id}", "registrar"))["phones"] == []


async def test_only_the_privacy_officer_erases(clinic: Clinic, registered: dict[str, Any]) -> None:
    path = f"/v1/patients/{registered['patient_id']}/erasures"
    body = {"classes": ["contact"], "reason": "asked for"}
    for role in ("doctor", "registrar", "system-administrator", "biller"):
        assert (await clinic.call("POST", path, role, body)).status_code == 403, role
    unknown = await clinic.call("POST", f"/v1/patients/{uuid7()}/erasures", "privacy-officer", body)
    assert unknown.status_code == 404
    nonsense = await clinic.call("POST", path, "privacy-officer", {"classes": ["all"], "reason": "asked for"})
    assert nonsense.status_code == 422


async def test_a_dump_before_and_after_says_that_the_key_is_gone(
    clinic: Clinic, registered: dict[str, Any]
) -> None:
    await asked(clinic, registered["patient_id"], "contact")
    async with clinic.patients.runtime.database.transaction() as tx:
        rows = await tx.fetch_all(
            text("SELECT data_key, destroyed_at FROM patient_key WHERE retention_class = 'contact'")
        )
    assert [(row.data_key, row.destroyed_at) for row in rows] == [(None, MONDAY)]


@pytest.mark.parametrize("name", ["gdpr", "152-fz", "hipaa"])
def test_every_jurisdiction_says_what_it_keeps_and_why(name: str) -> None:
    profile = profiles()[name]
    assert all(profile.rule(one).basis for one in RetentionClass)
    assert profile.request_days <= 30


def test_what_is_kept_may_go_when_its_time_is_over() -> None:
    rule = Rule(kept_years=10, basis="law")
    old, recent = MONDAY - timedelta(days=3653), MONDAY - timedelta(days=3651)
    assert judge(rule, last_changed_at=old, on_hold=False, now=MONDAY).may_be_erased
    assert not judge(rule, last_changed_at=recent, on_hold=False, now=MONDAY).may_be_erased
    assert not judge(rule, last_changed_at=old, on_hold=True, now=MONDAY).may_be_erased
