"""What somebody with the database's own password could do, and that it shows."""

from collections.abc import Awaitable, Callable

import pytest
from clinic_audit.recording import record_batch
from clinic_audit.signing import Signer, sign_checkpoint
from clinic_audit.verification import Report, verify_log
from clinic_shared.testing import ServiceHarness
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from .conftest import RecordFactory

Tamper = Callable[..., Awaitable[None]]


@pytest.fixture
async def filled(audit: ServiceHarness, record: RecordFactory) -> ServiceHarness:
    """Ten records, a checkpoint at five and one at ten."""
    for start in (0, 5):
        async with audit.runtime.database.transaction() as tx:
            await record_batch(tx, [record(n) for n in range(start, start + 5)])
        async with audit.runtime.database.transaction() as tx:
            await sign_checkpoint(tx, audit.runtime.get(Signer))
    return audit


async def verify(audit: ServiceHarness) -> Report:
    async with audit.runtime.database.transaction() as tx:
        return await verify_log(tx, audit.runtime.get(Signer).public_key)


async def tamper(audit: ServiceHarness, *statements: str) -> None:
    async with audit.runtime.database.transaction() as tx:
        await tx.execute(text("ALTER TABLE audit_record DISABLE TRIGGER USER"))
        await tx.execute(text("ALTER TABLE checkpoint DISABLE TRIGGER checkpoint_append_only"))
        for statement in statements:
            await tx.execute(text(statement))


async def test_an_untouched_log_is_intact(filled: ServiceHarness) -> None:
    report = await verify(filled)
    assert (report.intact, report.records, report.checkpoints) == (True, 10, 2)
    assert report.producers == {"scheduling": 10}


@pytest.mark.parametrize(
    "statement", ["UPDATE audit_record SET action = 'U'", "DELETE FROM audit_record", "TRUNCATE audit_record"]
)
async def test_the_log_refuses_to_be_changed(filled: ServiceHarness, statement: str) -> None:
    with pytest.raises(DBAPIError, match="append-only"):
        async with filled.runtime.database.transaction() as tx:
            await tx.execute(text(statement))


@pytest.mark.parametrize(
    ("statements", "kind", "says"),
    [
        (["UPDATE audit_record SET record = record || ' ' WHERE leaf_index = 3"], "altered", "record 3"),
        (["UPDATE audit_record SET patient_id = NULL WHERE leaf_index = 4"], "altered", "record 4"),
        (["DELETE FROM audit_record WHERE leaf_index = 2"], "missing", "records 2 to 2"),
        (["DELETE FROM audit_record WHERE leaf_index = 9"], "missing", "size 10"),
        (
            [
                "DELETE FROM checkpoint WHERE tree_size = 10",
                "UPDATE tree SET size = 9",
                "DELETE FROM audit_record WHERE leaf_index = 9",
            ],
            "missing",
            "tree",
        ),
        (
            ["UPDATE checkpoint SET signature = decode(repeat('00', 64), 'hex') WHERE tree_size = 5"],
            "signature",
            "size 5",
        ),
        (
            [
                (
                    "INSERT INTO audit_record SELECT 10, producer, 10, leaf_hash, record, record_id, recorded_at,"
                    " received_at, action, outcome, agent, entity_type, entity_id, patient_id"
                    " FROM audit_record WHERE leaf_index = 0"
                )
            ],
            "inserted",
            "11 records",
        ),
        (
            ["UPDATE audit_record SET record = '{', leaf_hash = sha256('\\x007b') WHERE leaf_index = 9"],
            "altered",
            "record 9",
        ),
        (
            ["UPDATE audit_record SET pseq = 1000000000000000 WHERE leaf_index = 9"],
            "missing",
            "999999999999991 records of scheduling are missing, from 9",
        ),
        (["UPDATE audit_record SET pseq = -1 WHERE leaf_index = 9"], "altered", "below zero"),
        (
            [
                "UPDATE audit_record SET leaf_index = 100 WHERE leaf_index = 6",
                "UPDATE audit_record SET leaf_index = 6 WHERE leaf_index = 7",
                "UPDATE audit_record SET leaf_index = 7 WHERE leaf_index = 100",
            ],
            "checkpoint",
            "first 10 records",
        ),
    ],
    ids=[
        "altered",
        "search-columns",
        "removed",
        "cut-off",
        "cut-off-with-checkpoint",
        "false-signature",
        "inserted",
        "no-record",
        "huge-number",
        "negative-number",
        "swapped",
    ],
)
async def test_tampering_is_found_and_named(
    filled: ServiceHarness, statements: list[str], kind: str, says: str
) -> None:
    await tamper(filled, *statements)
    report = await verify(filled)
    assert any(f.kind == kind and says in f.text for f in report.findings), report.findings


async def test_a_rewritten_record_with_its_hash_rewritten_too_contradicts_the_checkpoint(
    filled: ServiceHarness,
) -> None:
    await tamper(
        filled,
        "UPDATE audit_record SET record = other.record, record_id = other.record_id, patient_id = other.patient_id,"
        " leaf_hash = sha256('\\x00'::bytea || other.record)"
        " FROM audit_record other WHERE audit_record.leaf_index = 1 AND other.leaf_index = 2",
    )
    report = await verify(filled)
    assert any(f.kind == "checkpoint" for f in report.findings)


async def test_a_record_its_producer_sent_but_that_never_came_is_missed(
    audit: ServiceHarness, record: RecordFactory
) -> None:
    async with audit.runtime.database.transaction() as tx:
        await record_batch(tx, [record(0), record(2)])
    report = await verify(audit)
    assert [f.kind for f in report.findings] == ["missing"]
