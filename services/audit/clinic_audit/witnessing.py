"""What a witness remembers: every signed checkpoint with the leaf hashes since the one before, in a file of its own.

A checkpoint is taken only when its leaves lead from what was witnessed to its root: whoever rewrites the log, even
with the signing key, contradicts the file. It holds hashes, no content, and is only ever appended to.
"""

import base64
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from clinic_audit.domain import Checkpoint, Tree

HASH_BYTES = 32


class ContradictionError(Exception):
    """A checkpoint isn't signed, or isn't of the log that was witnessed."""


@dataclass(frozen=True)
class Statement:
    """A checkpoint with the leaf hashes of the records that it is the first to cover."""

    checkpoint: Checkpoint
    leaves: Sequence[bytes]

    def to_json(self) -> dict[str, Any]:
        signed = self.checkpoint
        return {
            "checkpoint_id": str(signed.checkpoint_id),
            "log_origin": signed.log_origin,
            "tree_size": signed.tree_size,
            "root_hash": signed.root_hash.hex(),
            "signed_at": signed.signed_at.isoformat(),
            "key_id": signed.key_id,
            "algorithm": signed.algorithm,
            "signature": signed.signature.hex(),
            "leaves": base64.b64encode(b"".join(self.leaves)).decode(),
        }

    @classmethod
    def of_json(cls, document: dict[str, Any]) -> "Statement":
        """Raises ValueError, KeyError, TypeError for anything else."""
        joined = base64.b64decode(document["leaves"], validate=True)
        checkpoint = Checkpoint(
            checkpoint_id=UUID(document["checkpoint_id"]),
            log_origin=str(document["log_origin"]),
            tree_size=int(document["tree_size"]),
            root_hash=bytes.fromhex(document["root_hash"]),
            signed_at=datetime.fromisoformat(document["signed_at"]),
            key_id=str(document["key_id"]),
            algorithm=str(document["algorithm"]),
            signature=bytes.fromhex(document["signature"]),
        )
        return cls(checkpoint, [joined[n : n + HASH_BYTES] for n in range(0, len(joined), HASH_BYTES)])


class Witness:
    """The file, and the tree that it comes to. Blocks while it reads and writes."""

    def __init__(self, file: Path, public_key: Ed25519PublicKey) -> None:
        self._file = file
        self._public_key = public_key
        self._tree = Tree()
        for statement in read_statements(file):
            self._tree = self._checked(statement)

    @property
    def size(self) -> int:
        """How many records were witnessed."""
        return self._tree.size

    def take(self, statement: Statement) -> None:
        """Remember a checkpoint, on disk before this returns. Raises ContradictionError."""
        grown = self._checked(statement)
        line = json.dumps(statement.to_json(), separators=(",", ":")) + "\n"
        _cut_off_torn_line(self._file)
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        self._tree = grown

    def _checked(self, statement: Statement) -> Tree:
        checkpoint = statement.checkpoint
        try:
            self._public_key.verify(checkpoint.signature, checkpoint.signed_text)
        except InvalidSignature:
            raise ContradictionError(
                f"the checkpoint of size {checkpoint.tree_size} has a false signature"
            ) from None
        grown = self._tree.append(statement.leaves)
        if (grown.size, grown.root) != (checkpoint.tree_size, checkpoint.root_hash):
            raise ContradictionError(
                f"the checkpoint of size {checkpoint.tree_size} doesn't continue "
                f"the {self._tree.size} records that were witnessed"
            )
        return grown


def read_statements(file: Path) -> Iterator[Statement]:
    """Yield what the file says. A last line without its end was never taken. Raises ContradictionError."""
    if not file.exists():
        return
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield Statement.of_json(json.loads(line))
            except (ValueError, KeyError, TypeError):
                raise ContradictionError(f"line {number} of the witness file was altered") from None


def _cut_off_torn_line(file: Path) -> None:
    """A process that died while it wrote left half a line, of a checkpoint that will be given again."""
    if not file.exists():
        return
    with file.open("r+b") as whole:
        content_end = whole.seek(0, os.SEEK_END)
        if content_end == 0:
            return
        whole.seek(content_end - 1)
        if whole.read(1) == b"\n":
            return
        whole.seek(0)
        whole.truncate(whole.read().rfind(b"\n") + 1)
