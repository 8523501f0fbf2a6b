"""Who may read the log, and what they get."""

from clinic_audit import tables
from clinic_audit.recording import record_batch
from clinic_shared.ids import uuid7
from clinic_shared.testing import ServiceHarness, assert_tables_match

from .conftest import RecordFactory


async def test_only_the_privacy_officer_reads_the_log(audit: ServiceHarness) -> None:
    statuses = {
        role: (
            await audit.http.get("/v1/audit/records", headers=audit.headers(audit.principal(role)))
        ).status_code
        for role in ("doctor", "system-administrator", "biller", "privacy-officer")
    }
    assert statuses == {"doctor": 403, "system-administrator": 403, "biller": 403, "privacy-officer": 200}
    assert (await audit.http.get("/v1/audit/records")).status_code == 401


async def test_records_are_found_by_patient_in_pages(audit: ServiceHarness, record: RecordFactory) -> None:
    patient_id = uuid7()
    async with audit.runtime.database.transaction() as tx:
        await record_batch(tx, [record(n, **({"patient_id": patient_id} if n % 2 else {})) for n in range(6)])
    headers = audit.headers(audit.principal("privacy-officer"))
    query = {"patient_id": str(patient_id), "limit": "2"}
    page = (await audit.http.get("/v1/audit/records", params=query, headers=headers)).json()
    assert [item["leaf_index"] for item in page["items"]] == [1, 3]
    rest = await audit.http.get(
        "/v1/audit/records", params=query | {"cursor": page["next_cursor"]}, headers=headers
    )
    assert [item["leaf_index"] for item in rest.json()["items"]] == [5]


async def test_verifying_signs_a_checkpoint_and_reports(audit: ServiceHarness, record: RecordFactory) -> None:
    async with audit.runtime.database.transaction() as tx:
        await record_batch(tx, [record(0)])
    headers = audit.headers(audit.principal("privacy-officer"))
    report = (await audit.http.post("/v1/audit/verify", headers=headers)).json()
    assert (report["intact"], report["records"], report["checkpoints"]) == (True, 1, 1)
    assert len(await audit.events("audit.audit-checkpoint-signed.v1")) == 1


async def test_tables_and_migrations_agree(audit: ServiceHarness) -> None:
    await assert_tables_match(tables.metadata, audit)
