"""An archived part of the log as a file that proves itself: offline, years later, without the database.

The first line has what leads to a signed checkpoint: the roots of the perfect subtrees before the part, the
leaf hash of each of its records, and the checkpoint that ends it. Each further line is one record, its exact
bytes sealed for its own place and number, so that what was altered, moved or taken out is named.
"""

import base64
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from clinic_shared.crash import crash_point
from clinic_shared.encryption.ciphers import DataKey, SealBrokenError
from clinic_shared.encryption.keyring import Keyring
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from clinic_audit.archive_tables import place_of
from clinic_audit.domain import Checkpoint, Tree, leaf_hash
from clinic_audit.findings import Finding
from clinic_audit.witnessing import Statement

FORMAT = "polyclinic-audit-archive-1"


class UnreadableArchiveError(Exception):
    """The file isn't an archive, or its first line was altered beyond reading."""


@dataclass(frozen=True)
class ArchivedRecord:
    """A record as it stood in the log: its exact bytes, its number in the log and in its producer's sequence."""

    leaf_index: int
    producer: str
    pseq: int
    received_at: datetime
    record: bytes

    @property
    def column(self) -> str:
        """What the sealed bytes are bound to, so that none of it can be altered alone."""
        return f"{self.leaf_index}/{self.producer}/{self.pseq}/{self.received_at.isoformat()}"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`before` is the tree at the part's beginning; `ends` the checkpoint it ends with, and its leaf hashes."""

    before: Tree
    ends: Statement
    data_key: bytes | None

    @property
    def first_index(self) -> int:
        return self.before.size

    @property
    def end_index(self) -> int:
        return self.ends.checkpoint.tree_size

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "first_index": self.before.size,
            "subtrees_before": [node.hex() for node in self.before.subtrees],
            "ends": self.ends.to_json(),
            "data_key": None if self.data_key is None else self.data_key.hex(),
        }

    @classmethod
    def of_json(cls, document: Mapping[str, Any]) -> "Manifest":
        """Raises ValueError, KeyError, TypeError for anything else."""
        if document["format"] != FORMAT:
            raise ValueError("another format")
        subtrees = tuple(bytes.fromhex(node) for node in document["subtrees_before"])
        data_key = document["data_key"]
        return cls(
            before=Tree(int(document["first_index"]), subtrees),
            ends=Statement.of_json(document["ends"]),
            data_key=None if data_key is None else bytes.fromhex(data_key),
        )


@dataclass
class Checked:
    """What became of checking a file. `records` are those that stand as they were signed; none without the keys."""

    manifest: Manifest
    opened: bool
    records: list[ArchivedRecord] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, kind: str, text: str) -> None:
        self.findings.append(Finding(kind, text))


def file_name(first_index: int, end_index: int) -> str:
    return f"audit-{first_index:012}-{end_index:012}.jsonl"


def encode(
    before: Tree, checkpoint: Checkpoint, records: Sequence[ArchivedRecord], keyring: Keyring
) -> bytes:
    """Return the file's content, sealed with a data key of its own unless encryption is switched off."""
    key, wrapped = keyring.new_key(place_of(before.size)) if keyring.encrypting else (None, None)
    ends = Statement(checkpoint, [leaf_hash(one.record) for one in records])
    manifest = Manifest(before=before, ends=ends, data_key=wrapped)
    lines = [manifest.to_json(), *(_line(one, key, before.size) for one in records)]
    return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)


def _line(one: ArchivedRecord, key: DataKey | None, first_index: int) -> dict[str, Any]:
    sealed = one.record if key is None else key.seal(one.record, place_of(first_index), one.column)
    return {
        "leaf_index": one.leaf_index,
        "producer": one.producer,
        "pseq": one.pseq,
        "received_at": one.received_at.isoformat(),
        "sealed": base64.b64encode(sealed).decode(),
    }


def write(file: Path, content: bytes) -> None:
    """Write beside and put in place, on disk before this returns: there is never half an archive of that name."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    written = file.with_name(f".{file.name}.part")
    descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    crash_point("archive.written")
    written.replace(file)
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Have what was put into a folder, or taken from it, on disk before this returns."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check(
    content: bytes,
    public_key: Ed25519PublicKey,
    keyring: Keyring | None = None,
    *,
    data_key: bytes | None = None,
) -> Checked:
    """Check an archive against its signed checkpoint and name what isn't as it was. Raises UnreadableArchiveError.

    Without keys the records stay closed, and only what is missing or out of place is named. `data_key` is a later
    wrapping of the archive's own than the file has. Raises KeysUnavailableError when the keyring can't open it.
    """
    first, *lines = content.split(b"\n")
    try:
        manifest = Manifest.of_json(json.loads(first))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UnreadableArchiveError("its first line isn't that of an archive") from None
    wrapped = data_key or manifest.data_key
    checked = Checked(manifest, opened=wrapped is None or keyring is not None)
    _check_proof(checked, public_key)
    try:
        key = _data_key(manifest, keyring, wrapped)
    except SealBrokenError:
        checked.opened = False
        checked.add("altered", "the key that opens the records was altered")
        return checked
    _check_records(checked, lines, key)
    return checked


def _data_key(manifest: Manifest, keyring: Keyring | None, wrapped: bytes | None) -> DataKey | None:
    if wrapped is None or keyring is None:
        return None
    return keyring.data_key(wrapped, place_of(manifest.first_index))


def _check_proof(checked: Checked, public_key: Ed25519PublicKey) -> None:
    manifest, signed = checked.manifest, checked.manifest.ends.checkpoint
    try:
        public_key.verify(signed.signature, signed.signed_text)
    except InvalidSignature:
        checked.add("signature", f"the checkpoint of size {signed.tree_size} has a false signature")
    before = manifest.before
    if len(before.subtrees) != before.size.bit_count() or before.size < 0:
        checked.add("checkpoint", f"what stood before record {before.size} isn't a tree of that size")
        return
    grown = before.append(manifest.ends.leaves)
    if (grown.size, grown.root) != (signed.tree_size, signed.root_hash):
        checked.add(
            "checkpoint",
            f"the leaf hashes don't lead from {before.size} to the checkpoint of {signed.tree_size}",
        )


def _check_records(checked: Checked, lines: Sequence[bytes], key: DataKey | None) -> None:
    leaves, first = checked.manifest.ends.leaves, checked.manifest.first_index
    seen: set[int] = set()
    before = first - 1
    for index, line in _numbered(checked, lines):
        if index in seen or not first <= index < first + len(leaves):
            checked.add("inserted", f"a record with the number {index} doesn't belong here")
            continue
        if index < before:
            checked.add("reordered", f"record {index} stands after record {before}")
        seen.add(index)
        before = index
        if checked.opened:
            _check_record(checked, line, leaves[index - first], key)
    missing = [index for index in range(first, first + len(leaves)) if index not in seen]
    for index in missing:
        checked.add("missing", f"record {index} is missing")


def _numbered(checked: Checked, lines: Sequence[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each line with the number it says it has; a line that can't be read is named by where it stands."""
    for place, line in enumerate(lines, checked.manifest.first_index):
        if not line:
            continue
        try:
            document = json.loads(line)
            yield int(document["leaf_index"]), document
        except (ValueError, KeyError, TypeError, RecursionError):
            checked.add("altered", f"the line in the place of record {place} can't be read")


def _check_record(checked: Checked, line: Mapping[str, Any], leaf: bytes, key: DataKey | None) -> None:
    number = int(line["leaf_index"])
    try:
        sealed = base64.b64decode(line["sealed"], validate=True)
        told = ArchivedRecord(
            number,
            str(line["producer"]),
            int(line["pseq"]),
            datetime.fromisoformat(line["received_at"]),
            sealed,
        )
        content = sealed
        if key is not None:
            content = key.open(sealed, place_of(checked.manifest.first_index), told.column)
    except (ValueError, KeyError, TypeError, SealBrokenError):
        checked.add("altered", f"record {number} isn't as it was sealed")
        return
    if leaf_hash(content) != leaf:
        checked.add("altered", f"record {number} doesn't have the bytes that were hashed")
        return
    checked.records.append(ArchivedRecord(number, told.producer, told.pseq, told.received_at, content))
