"""What audit contributes to a patient's export."""

from clinic_audit.recording import record_batch
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.testing import ServiceHarness
from clinic_shared.testing_exports import exported

from .conftest import RecordFactory

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
