"""Is the log whole? Every record hashed again, every sequence counted, every checkpoint recomputed.

What a database administrator could do shows: an altered record changes its leaf, a missing one leaves
a gap in the index or in its producer's sequence, an inserted one isn't in the tree.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from uuid import UUID

import orjson
from clinic_shared.database import Transaction
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from clinic_audit import log_reading, store
from clinic_audit.comparison import differences
from clinic_audit.domain import Checkpoint, Tree, leaf_hash
from clinic_audit.findings import Finding
from clinic_audit.log_reading import ArchivedLeaf, StoredRecord
from clinic_audit.recording import read_index
from clinic_audit.witnessing import Statement

MAX_FINDINGS = 100
_MAY_BE_MISSING = {"request_id", "agent_kind"}
"""Columns that the release before doesn't fill: without them a record is found by fewer ways, not altered."""


@dataclass
class Report:
    records: int = 0
    checkpoints: int = 0
    producers: dict[str, int] = field(default_factory=dict)
    root_hash: bytes = b""
    archived: int = 0
    """So many of the records are in archives: here are only their hashes."""
    witnessed: int = 0
    """So many records were compared with what a witness remembers."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        return not self.findings

    def add(self, kind: str, text: str) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(kind, text))


async def verify_log(
    tx: Transaction, public_key: Ed25519PublicKey, *, witnessed: Sequence[Statement] | None = None
) -> Report:
    """Check the whole log; reads it once, in constant memory but for the sequence numbers.

    With what a witness remembers, records are compared one by one, and their hashes are kept in memory.
    """
    report, sound, walk = Report(), 0, _Walk(keep_leaves=witnessed is not None)
    stored = await store.read_tree(tx)
    checkpoints = await store.list_checkpoints(tx)
    roots = {c.tree_size: c for c in checkpoints}
    async for steps in _steps(tx, walk, report):
        for size in steps:
            if size in roots:
                checkpoint = roots.pop(size)
                _check_checkpoint(report, checkpoint, walk.tree, public_key, signed_before=sound)
                sound = size if checkpoint.root_hash == walk.tree.root else sound
    for checkpoint in roots.values():
        report.add("missing", f"the log is shorter than its checkpoint of size {checkpoint.tree_size}")
    for finding in walk.sequence_gaps():
        report.add(finding.kind, finding.text)
    if walk.tree != stored:
        kind = "inserted" if walk.tree.size > stored.size else "missing"
        report.add(kind, f"the log has {walk.tree.size} records, its tree {stored.size}")
    if witnessed is not None:
        _compare(report, walk.leaves, witnessed)
    await _check_archived(tx, report)
    if incidents := await store.count_incidents(tx):
        report.add("incident", f"{incidents} records could not be taken into the log")
    report.records, report.checkpoints = walk.tree.size, len(checkpoints)
    report.producers = {name: len(seen) for name, seen in sorted(walk.sequences.items())}
    report.root_hash = walk.tree.root
    return report


async def _steps(tx: Transaction, walk: "_Walk", report: Report) -> AsyncIterator[Iterator[int]]:
    """Walk the log in parts: first what stayed behind of archived records, then those that are there."""
    async for leaves in log_reading.read_archived(tx):
        yield walk.past(leaves, report)
    report.archived = walk.size
    async for rows in log_reading.read_log(tx):
        yield walk.along(rows, report)


async def _check_archived(tx: Transaction, report: Report) -> None:
    """What left the log must be in an archive, and what was restored must be what left it."""
    if astray := await log_reading.count_astray(tx):
        report.add("missing", f"{astray} records left the log into no archive")
    for index in await log_reading.restored_otherwise(tx):
        report.add("altered", f"record {index} was restored otherwise than it left the log")
    async for rows in log_reading.read_log(tx, restored=True):
        for row in rows:
            _check_content(row, report)


class _Walk:
    """One pass over the log in the order of its index."""

    def __init__(self, *, keep_leaves: bool) -> None:
        self.leaves: list[bytes] = []
        self.sequences: defaultdict[str, set[int]] = defaultdict(set)
        self._tree = Tree()
        self._pending: list[bytes] = []
        self._keep_leaves = keep_leaves
        self._expected = 0

    @property
    def size(self) -> int:
        return self._tree.size + len(self._pending)

    @property
    def tree(self) -> Tree:
        self._tree, self._pending = self._tree.append(self._pending), []
        return self._tree

    def along(self, rows: Sequence[StoredRecord], report: Report) -> Iterator[int]:
        """Check records; yield the log's size after each."""
        for row in rows:
            self._take(row, report)
            _check_content(row, report)
            yield self.size

    def past(self, leaves: Sequence[ArchivedLeaf], report: Report) -> Iterator[int]:
        """Take places and hashes into account, the content being elsewhere; yield the log's size after each."""
        for leaf in leaves:
            self._take(leaf, report)
            yield self.size

    def _take(self, row: StoredRecord | ArchivedLeaf, report: Report) -> None:
        if row.leaf_index != self._expected:
            report.add("missing", f"records {self._expected} to {row.leaf_index - 1} are missing")
        self._expected = row.leaf_index + 1
        self.sequences[row.producer].add(row.pseq)
        if self._keep_leaves:
            self.leaves.append(row.leaf_hash)
        # The stored hash: one altered record is one finding, not also every checkpoint after it.
        self._pending.append(row.leaf_hash)

    def sequence_gaps(self) -> Iterator[Finding]:
        for producer, seen in sorted(self.sequences.items()):
            numbers = {n for n in seen if n >= 0}
            if numbers != seen:
                yield Finding("altered", f"a record of {producer} has a number below zero")
            # Counted, not listed: a number altered to a huge one must not cost the memory of all before it.
            end = max(numbers, default=-1) + 1
            if missing := end - len(numbers):
                shown = ", ".join(str(n) for n in islice((n for n in range(end) if n not in numbers), 5))
                yield Finding("missing", f"{missing} records of {producer} are missing, from {shown}")


def _check_content(row: StoredRecord, report: Report) -> None:
    if leaf_hash(row.record) != row.leaf_hash:
        report.add("altered", f"record {row.leaf_index} doesn't have the bytes that were hashed")
    elif not (_index_is_spelt_alike(row) or _index_agrees(row)):
        report.add("altered", f"the search columns of record {row.leaf_index} don't say what it says")


def _index_is_spelt_alike(row: StoredRecord) -> bool:
    """Say whether the columns are, letter by letter, what the record says: nearly all are, and it is soon said."""
    try:
        said = orjson.loads(row.record)
        agent, entity = said["agent"], said["entity"]
        return (
            said["id"] == row.record_id
            and said["action"] == row.action
            and said["outcome"] == row.outcome
            and agent["who"] == row.agent
            and entity["type"] == row.entity_type
            and entity["id"] == row.entity_id
            and said["patient"] == row.patient_id
            and said["request"] == row.request_id
            and agent["kind"] == row.agent_kind
            and datetime.fromisoformat(said["recorded"]) == row.recorded_at
        )
    except (ValueError, KeyError, TypeError):
        return False


def _index_agrees(row: StoredRecord) -> bool:
    """The same by the rules that the columns were filled by, whatever the spelling."""
    try:
        columns = read_index(row.record).columns()
    except (ValueError, RecursionError):
        # Never taken in like this: whoever altered the bytes rewrote their hash too.
        return False
    stored = row._asdict()
    return all(
        stored[name] == (str(value) if isinstance(value, UUID) else value)
        or (name in _MAY_BE_MISSING and stored[name] is None)
        for name, value in columns.items()
    )


def _compare(report: Report, leaves: Sequence[bytes], witnessed: Sequence[Statement]) -> None:
    seen = [leaf for statement in witnessed for leaf in statement.leaves]
    for difference in differences(leaves, seen):
        report.add(difference.kind, difference.text)
    report.witnessed = len(seen)


def _check_checkpoint(
    report: Report, checkpoint: Checkpoint, tree: Tree, public_key: Ed25519PublicKey, *, signed_before: int
) -> None:
    if checkpoint.root_hash != tree.root:
        report.add(
            "checkpoint",
            f"the first {tree.size} records are not those that were signed; of them, the first {signed_before} are",
        )
    try:
        public_key.verify(checkpoint.signature, checkpoint.signed_text)
    except InvalidSignature:
        report.add("signature", f"the checkpoint of size {tree.size} has a false signature")
