"""What audit contributes to a patient's export."""

import pytest
from clinic_audit import export
from clinic_audit.recording import record_batch
from clinic_audit.restoring import restore
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.testing import ServiceHarness
from clinic_shared.testing_exports import exported

from .conftest import Kept, RecordFactory

DOCTOR = Principal(subject=uuid7(), kind="staff", roles=frozenset({"doctor"}), token_id="token-1")


async def test_who_looked_at_the_record_without_what_the_platform_did(
    audit: ServiceHarness, record: RecordFactory
) -> None:
    patient_id = uuid7()
    records = [
        record(0, patient_id=patient_id, principal=DOCTOR, resource_type="Encounter", purpose="TREAT"),
        record(1, patient_id=patient_id),
        record(2, principal=DOCTOR),
    ]
    async with audit.runtime.database.transaction() as tx:
        await record_batch(tx, records)
    [seen] = (await exported(audit, patient_id)).others["access-log"]
    assert (seen["who"], seen["what"]) == (str(DOCTOR.subject), "Encounter")
    assert (await exported(audit, uuid7())).others["access-log"] == []


async def test_of_very_many_accesses_the_newest_are_there_and_the_rest_is_said(
    audit: ServiceHarness, record: RecordFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "NEWEST", 3)
    patient_id = uuid7()
    async with audit.runtime.database.transaction() as tx:
        await record_batch(tx, [record(n, patient_id=patient_id, principal=DOCTOR) for n in range(3)])
    whole = (await exported(audit, patient_id)).others
    assert (len(whole["access-log"]), whole["left-out"]) == (3, [])
    async with audit.runtime.database.transaction() as tx:
        await record_batch(tx, [record(n, patient_id=patient_id, principal=DOCTOR) for n in range(3, 5)])
        await record_batch(tx, [record(5, patient_id=patient_id)])
    cut = (await exported(audit, patient_id)).others
    assert [seen["leaf_index"] for seen in cut["access-log"]] == [4, 3, 2]
    [missing] = cut["left-out"]
    assert (missing["count"], missing["before"]) == (2, cut["access-log"][-1]["at"])
    assert "access-log" in missing["where"]


async def test_that_there_are_archives_is_said_until_they_are_restored(kept: Kept) -> None:
    async def left_out() -> list[str]:
        return [one["what"] for one in (await exported(kept.audit, uuid7())).others["left-out"]]

    assert await left_out() == []
    await kept.archive()
    [said] = await left_out()
    assert "archives" in said
    await restore(kept.archives, 0)
    assert await left_out() == []
