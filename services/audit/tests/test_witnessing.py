"""A witness beside the log: what no key and no password can rewrite."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from clinic_audit import store
from clinic_audit.comparison import differences
from clinic_audit.domain import Tree, leaf_hash
from clinic_audit.local_witness import show
from clinic_audit.log_reading import read_log
from clinic_audit.recording import record_batch
from clinic_audit.signing import MOST_UNSIGNED, Signer, sign_checkpoint, sign_if_many
from clinic_audit.verification import Report, verify_log
from clinic_audit.witnessing import ContradictionError, Statement, Witness, read_statements
from clinic_shared.testing import ServiceHarness
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from .conftest import RecordFactory

Grow = Callable[[int, int], Awaitable[None]]
LETTERS = st.lists(st.integers(0, 30), unique=True, max_size=12)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints.jsonl"


@pytest.fixture
def grow(audit: ServiceHarness, record: RecordFactory) -> Grow:
    async def do(start: int, end: int) -> None:
        async with audit.runtime.database.transaction() as tx:
            await record_batch(tx, [record(n) for n in range(start, end)])
            await sign_checkpoint(tx, audit.runtime.get(Signer))

    return do


@pytest.fixture
async def witness(audit: ServiceHarness, grow: Grow, file: Path) -> Witness:
    """Ten records were witnessed, in two checkpoints."""
    await grow(0, 5)
    await grow(5, 10)
    remembered = Witness(file, audit.runtime.get(Signer).public_key)
    await show(audit.runtime, remembered)
    return remembered


async def verify(audit: ServiceHarness, file: Path) -> Report:
    async with audit.runtime.database.transaction() as tx:
        return await verify_log(
            tx, audit.runtime.get(Signer).public_key, witnessed=list(read_statements(file))
        )


async def rewrite(audit: ServiceHarness, *statements: str) -> None:
    """Change records, then make everything of the database fit again, signed with the real key."""
    async with audit.runtime.database.transaction() as tx:
        for table in ("audit_record", "checkpoint"):
            await tx.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
        for statement in statements:
            await tx.execute(text(statement))
        await tx.execute(text("DELETE FROM checkpoint"))
        rows = [row async for chunk in read_log(tx) for row in chunk]
        await store.save_tree(tx, Tree().append(row.leaf_hash for row in rows))
        await sign_checkpoint(tx, audit.runtime.get(Signer))


async def test_what_was_witnessed_is_found_again(
    audit: ServiceHarness, witness: Witness, file: Path, grow: Grow
) -> None:
    assert witness.size == 10
    await grow(10, 12)
    again = Witness(file, audit.runtime.get(Signer).public_key)
    await show(audit.runtime, again)
    assert again.size == 12
    report = await verify(audit, file)
    assert (report.intact, report.records, report.witnessed) == (True, 12, 12)


@pytest.mark.parametrize(
    ("statements", "kind", "says"),
    [
        (
            [
                (
                    "UPDATE audit_record SET record = convert_to(replace(convert_from(record, 'UTF8'), '\"R\"', '\"U\"'),"
                    " 'UTF8'), action = 'U' WHERE leaf_index = 3"
                ),
                "UPDATE audit_record SET leaf_hash = sha256('\\x00'::bytea || record)",
            ],
            "altered",
            "record 3",
        ),
        (
            [
                "DELETE FROM audit_record WHERE leaf_index = 3",
                "UPDATE audit_record SET leaf_index = -leaf_index, pseq = -pseq WHERE leaf_index > 3",
                "UPDATE audit_record SET leaf_index = -leaf_index - 1, pseq = -pseq - 1 WHERE leaf_index < 0",
            ],
            "missing",
            "witnessed as 3",
        ),
        (["DELETE FROM audit_record WHERE leaf_index = 9"], "missing", "witnessed as 9"),
        (
            [
                "UPDATE audit_record SET leaf_index = -1 WHERE leaf_index = 3",
                "UPDATE audit_record SET leaf_index = 3 WHERE leaf_index = 7",
                "UPDATE audit_record SET leaf_index = 7 WHERE leaf_index = -1",
            ],
            "reordered",
            "record 3 was witnessed as record 7",
        ),
        (
            [
                "UPDATE audit_record SET leaf_index = -leaf_index - 1, pseq = -pseq - 1 WHERE leaf_index >= 3",
                "UPDATE audit_record SET leaf_index = -leaf_index, pseq = -pseq WHERE leaf_index < 0",
                (
                    "INSERT INTO audit_record SELECT 3, producer, 3, sha256('\\x00'::bytea || record || ' '), record || ' ',"
                    " record_id, recorded_at, received_at, action, outcome, agent, entity_type, entity_id, patient_id,"
                    " request_id, agent_kind FROM audit_record WHERE leaf_index = 0"
                ),
            ],
            "inserted",
            "record 3",
        ),
    ],
    ids=["altered", "removed", "cut-off", "swapped", "inserted"],
)
async def test_a_log_rewritten_with_the_signing_key_itself_is_found_and_the_record_named(
    audit: ServiceHarness, witness: Witness, file: Path, statements: list[str], kind: str, says: str
) -> None:
    await rewrite(audit, *statements)
    report = await verify(audit, file)
    named = [finding for finding in report.findings if finding.kind == kind]
    assert any(says in finding.text for finding in named), report.findings
    with pytest.raises(ContradictionError):
        Witness(file, audit.runtime.get(Signer).public_key).take(await _last(audit))


async def _last(audit: ServiceHarness) -> Statement:
    async with audit.runtime.database.transaction() as tx:
        return (await store.next_statements(tx, 0))[-1]


async def test_a_log_restored_from_before_is_missed(
    audit: ServiceHarness, witness: Witness, file: Path, record: RecordFactory, grow: Grow
) -> None:
    await rewrite(audit, "DELETE FROM audit_record WHERE leaf_index >= 5")
    report = await verify(audit, file)
    assert [f.kind for f in report.findings if f.kind == "missing"] == ["missing"] * 5
    async with audit.runtime.database.transaction() as tx:
        await record_batch(tx, [record(n) for n in range(5, 12)])
        await sign_checkpoint(tx, audit.runtime.get(Signer))
    with pytest.raises(ContradictionError):
        await show(audit.runtime, witness)


async def test_a_checkpoint_with_a_false_signature_is_refused(
    audit: ServiceHarness, witness: Witness, grow: Grow
) -> None:
    await grow(10, 11)
    true = await _last(audit)
    false = replace(true, checkpoint=replace(true.checkpoint, signature=bytes(64)))
    with pytest.raises(ContradictionError, match="signature"):
        witness.take(false)


@pytest.mark.parametrize("change", [(b'"tree_size":5', b'"tree_size":6'), (b'{"checkpoint_id"', b'{"other"')])
def test_an_altered_witness_file_is_no_witness(
    audit: ServiceHarness, witness: Witness, file: Path, change: tuple[bytes, bytes]
) -> None:
    file.write_bytes(file.read_bytes().replace(*change, 1))
    with pytest.raises(ContradictionError):
        Witness(file, audit.runtime.get(Signer).public_key)


async def test_half_a_line_of_a_process_that_died_is_written_again(
    audit: ServiceHarness, witness: Witness, file: Path, grow: Grow
) -> None:
    await grow(10, 12)
    with file.open("ab") as torn:
        torn.write(b'{"checkpoint_id":"01')
    again = Witness(file, audit.runtime.get(Signer).public_key)
    await show(audit.runtime, again)
    assert [one.checkpoint.tree_size for one in read_statements(file)] == [5, 10, 12]


async def test_witnesses_elsewhere_are_told_hashes_only(audit: ServiceHarness, witness: Witness) -> None:
    headers = audit.headers(audit.principal("system-administrator"))
    answer = await audit.http.get("/v1/audit/checkpoints", params={"after": "5"}, headers=headers)
    [document] = answer.json()
    assert (document["tree_size"], len(Statement.of_json(document).leaves)) == (10, 5)
    refused = await audit.http.get("/v1/audit/checkpoints", headers=audit.headers(audit.principal("doctor")))
    assert refused.status_code == 403


async def test_a_thousand_records_are_signed_without_waiting(
    audit: ServiceHarness, record: RecordFactory
) -> None:
    signer = audit.runtime.get(Signer)
    for count, signed in ((MOST_UNSIGNED - 1, 0), (MOST_UNSIGNED, MOST_UNSIGNED)):
        async with audit.runtime.database.transaction() as tx:
            start = (await store.read_tree(tx)).size
            await record_batch(tx, [record(n) for n in range(start, count)])
            await sign_if_many(tx, signer)
            assert await store.last_checkpoint_size(tx) == signed


@given(witnessed=LETTERS, log=LETTERS)
def test_what_differs_is_always_named_and_what_does_not_never(witnessed: list[int], log: list[int]) -> None:
    def leaves(numbers: list[int]) -> list[bytes]:
        return [leaf_hash(bytes([n])) for n in numbers]

    found = list(differences(leaves(log), leaves(witnessed)))
    assert (found == []) == (log[: len(witnessed)] == witnessed)
    assert len({(one.kind, one.index) for one in found}) == len(found)
