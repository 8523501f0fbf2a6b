"""What those who watch are told about the log and its signatures."""

from clinic_audit.measurements import measure_log
from clinic_audit.recording import record_batch
from clinic_audit.signing import Signer, sign_checkpoint
from clinic_shared.metrics import REGISTRY
from clinic_shared.testing import ServiceHarness

from .conftest import RecordFactory


async def test_records_are_unsigned_until_a_checkpoint_covers_them(
    audit: ServiceHarness, record: RecordFactory
) -> None:
    runtime = audit.runtime
    async with runtime.database.transaction() as tx:
        await record_batch(tx, [record(0), record(1)])
        await measure_log(runtime, tx)
        assert REGISTRY.get_sample_value("clinic_audit_unsigned_records") == 2
        await sign_checkpoint(tx, runtime.get(Signer))
        await measure_log(runtime, tx)
    assert REGISTRY.get_sample_value("clinic_audit_unsigned_records") == 0
    signed_at = REGISTRY.get_sample_value("clinic_audit_checkpoint_timestamp_seconds")
    assert signed_at == audit.clock.now().timestamp()
