"""Who viewed my record: what a patient sees of the log, and what the privacy officer does."""

import json
from datetime import timedelta
from typing import Any

import httpx
import pytest
from clinic_audit.recording import record_batch
from clinic_shared.audit import Action, Outcome
from clinic_shared.events import audit_outbox
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.testing import MONDAY, ServiceHarness
from sqlalchemy import select

from .conftest import RecordFactory

DOCTOR = Principal(subject=uuid7(), kind="staff", roles=frozenset({"doctor"}), token_id="token-1")
LAB = Principal(subject=uuid7(), kind="client", roles=frozenset({"lab"}))
PATIENT = uuid7()
OUTBOX = select(audit_outbox.c.record).order_by(audit_outbox.c.id)


def read(record: bytes) -> tuple[str, str | None]:
    content = json.loads(record)
    return content["entity"]["type"], content["patient"]


@pytest.fixture
async def filled(audit: ServiceHarness, record: RecordFactory) -> ServiceHarness:
    """A doctor's reading, somebody else's record, the platform's act, a laboratory, a refusal, an emergency."""
    mine: dict[str, Any] = {"patient_id": PATIENT}
    records = [
        record(0, **mine, principal=DOCTOR, resource_type="Encounter", purpose="TREAT"),
        record(1, principal=DOCTOR),
        record(2, **mine),
        record(3, **mine, principal=LAB, action=Action.CREATE, resource_type="LabMessage"),
        record(4, **mine, principal=DOCTOR, outcome=Outcome.DENIED, reason="concealed"),
        record(5, **mine, principal=DOCTOR, purpose="BTG", reason="unconscious"),
    ]
    async with audit.runtime.database.transaction() as tx:
        await record_batch(tx, records)
    return audit


async def asked(audit: ServiceHarness, path: str, principal: Principal, **query: Any) -> httpx.Response:
    return await audit.http.get(path, params=query, headers=audit.headers(principal))


async def accesses(audit: ServiceHarness, principal: Principal, **query: Any) -> list[dict[str, Any]]:
    answer = await asked(audit, f"/v1/patients/{PATIENT}/access-log", principal, **query)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


def the_patient(audit: ServiceHarness) -> Principal:
    return audit.principal("patient", patient_id=PATIENT)


async def test_a_patient_sees_who_looked_the_newest_first(filled: ServiceHarness) -> None:
    found = await accesses(filled, the_patient(filled))
    assert [access["leaf_index"] for access in found] == [5, 4, 3, 0]
    assert {access["who"] for access in found} == {str(DOCTOR.subject), str(LAB.subject)}
    assert [access["emergency"] for access in found] == [True, False, False, False]
    assert [access["refused"] for access in found] == [False, True, False, False]
    assert (found[3]["what"], found[3]["roles"], found[3]["purpose"]) == ("Encounter", ["doctor"], "TREAT")


async def test_disclosures_are_what_went_outside_the_network(filled: ServiceHarness) -> None:
    found = await accesses(filled, filled.principal("privacy-officer"), disclosures=True)
    assert [access["leaf_index"] for access in found] == [3]


async def test_pages_and_times(filled: ServiceHarness) -> None:
    path = f"/v1/patients/{PATIENT}/access-log"
    first = (await asked(filled, path, the_patient(filled), limit=3)).json()
    rest = (await asked(filled, path, the_patient(filled), limit=3, cursor=first["next_cursor"])).json()
    assert [a["leaf_index"] for a in first["items"] + rest["items"]] == [5, 4, 3, 0]
    since = (MONDAY + timedelta(minutes=3)).isoformat()
    until = (MONDAY + timedelta(minutes=5)).isoformat()
    found = await accesses(filled, the_patient(filled), since=since, until=until)
    assert [access["leaf_index"] for access in found] == [4, 3]


async def test_nobody_reads_another_patients_log(filled: ServiceHarness) -> None:
    path = f"/v1/patients/{PATIENT}/access-log"
    other = filled.principal("patient", patient_id=uuid7())
    assert (await asked(filled, path, other)).status_code == 404
    for role in ("doctor", "system-administrator", "registrar", "biller"):
        assert (await asked(filled, path, filled.principal(role))).status_code == 403, role


async def test_the_log_is_searched_by_request_time_and_outcome(filled: ServiceHarness) -> None:
    officer = filled.principal("privacy-officer")

    async def found(**query: Any) -> list[dict[str, Any]]:
        answer = await asked(filled, "/v1/audit/records", officer, **query)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["items"])

    [refused] = await found(outcome="4")
    assert refused["leaf_index"] == 4
    request = refused["record"]["request"]
    assert [one["leaf_index"] for one in await found(request_id=request)] == [4]
    assert [one["leaf_index"] for one in await found(entity_type="LabMessage")] == [3]
    assert [one["leaf_index"] for one in await found(agent=str(DOCTOR.subject), newest_first=True)] == [
        5,
        4,
        1,
        0,
    ]
    assert await found(producer="billing") == []
    bad = await asked(filled, "/v1/audit/records", officer, since="yesterday")
    assert bad.status_code == 422


async def test_merged_records_have_one_log_until_that_is_undone(filled: ServiceHarness) -> None:
    in_use, other = uuid7(), filled.principal("patient", patient_id=uuid7())
    officer = filled.principal("privacy-officer")
    merge_id = await filled.tell_of_merge(PATIENT, in_use)
    person = filled.principal("patient", patient_id=in_use, patient_records=frozenset({in_use, PATIENT}))
    for patient_id in (in_use, PATIENT):
        path = f"/v1/patients/{patient_id}/access-log"
        shown = (await asked(filled, path, person)).json()["items"]
        assert [access["leaf_index"] for access in shown] == [5, 4, 3, 0]
        assert (await asked(filled, path, other)).status_code == 404
    records = (await asked(filled, "/v1/audit/records", officer, patient_id=str(in_use))).json()["items"]
    assert [one["leaf_index"] for one in records] == [0, 2, 3, 4, 5]
    assert {one["record"]["patient"] for one in records} == {str(PATIENT)}
    bundle = (await asked(filled, "/fhir/R4/AuditEvent", officer, patient=f"Patient/{in_use}")).json()
    assert len(bundle["entry"]) == 5
    await filled.tell_of_merge(PATIENT, in_use, merge_id=merge_id, undone=True)
    # Told late, of what was before: changes nothing.
    await filled.tell_of_merge(PATIENT, in_use, merge_id=merge_id)
    path = f"/v1/patients/{in_use}/access-log"
    assert (await asked(filled, path, officer)).json()["items"] == []


async def test_an_audit_event_has_the_shape_of_balp(filled: ServiceHarness) -> None:
    officer = filled.principal("privacy-officer")
    answer = await asked(filled, "/fhir/R4/AuditEvent", officer, patient=f"Patient/{PATIENT}", action="R")
    assert answer.headers["content-type"] == "application/fhir+json"
    bundle = answer.json()
    assert bundle["type"] == "searchset"
    events = [entry["resource"] for entry in bundle["entry"]]
    reading = events[-1]
    assert reading["meta"]["profile"][0].endswith("IHE.BasicAudit.PatientRead")
    assert [coding["code"] for coding in reading["subtype"]] == ["read"]
    assert reading["purposeOfEvent"][0]["coding"][0]["code"] == "TREAT"
    user, server = reading["agent"]
    assert (user["requestor"], user["who"]["identifier"]["value"]) == (True, str(DOCTOR.subject))
    assert user["policy"] == ["urn:polyclinic:token:token-1"]
    assert server == {**server, "requestor": False, "who": {"display": "scheduling"}}
    assert reading["entity"][0]["what"] == {"reference": f"Patient/{PATIENT}"}
    assert any(entity["type"]["code"] == "XrequestId" for entity in reading["entity"])
    emergency = events[0]
    assert "110127" in {coding["code"] for coding in emergency["subtype"]}
    alone = await asked(filled, f"/fhir/R4/AuditEvent/{reading['id']}", officer)
    assert alone.json() == reading
    assert (await asked(filled, f"/fhir/R4/AuditEvent/{uuid7()}", officer)).status_code == 404


@pytest.mark.parametrize(
    ("dates", "found"),
    [
        (["2026-03-02"], 4),
        (["lt2026-03-02"], 0),
        (["gt2026-03-02"], 0),
        (["ge2026-03-02T06:04:00Z"], 2),
        (["ge2026-03-02T06:03:00Z", "lt2026-03-02T06:04:00Z"], 1),
    ],
)
async def test_audit_events_are_searched_by_fhir_dates(
    filled: ServiceHarness, dates: list[str], found: int
) -> None:
    officer = filled.principal("privacy-officer")
    people = {"patient": str(PATIENT), "date": dates}
    bundle = (await asked(filled, "/fhir/R4/AuditEvent", officer, **people)).json()
    by_people = [e for e in bundle["entry"] if e["resource"]["agent"][0]["who"]["display"] != "system"]
    assert len(by_people) == found


@pytest.mark.parametrize("query", [{"date": "soon"}, {"date": "2026-03-02T06:00:00"}, {"patient": "x"}])
async def test_a_search_that_makes_no_sense_is_refused(filled: ServiceHarness, query: dict[str, str]) -> None:
    answer = await asked(filled, "/fhir/R4/AuditEvent", filled.principal("privacy-officer"), **query)
    assert answer.status_code == 422


async def test_reading_the_log_leaves_a_record_itself(filled: ServiceHarness) -> None:
    officer = filled.principal("privacy-officer")
    await accesses(filled, officer)
    await asked(filled, "/v1/audit/records", officer, outcome="4")
    await asked(filled, "/fhir/R4/AuditEvent", officer)
    async with filled.runtime.database.transaction() as tx:
        kept = await tx.fetch_all(OUTBOX)
    assert [read(row.record) for row in kept] == [
        ("AccessLog", str(PATIENT)),
        ("AuditEvent", None),
        ("AuditEvent", None),
    ]
