"""The Merkle tree of the log, pure (RFC 6962, 2.1): append, root, and what a checkpoint says.

A compact range (the roots of the perfect subtrees, largest first) is all that appending needs.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

EMPTY_ROOT = hashlib.sha256().digest()


def leaf_hash(record: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + record).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True)
class Tree:
    """The log's state: its size, and the roots of its perfect subtrees, largest first."""

    size: int = 0
    subtrees: tuple[bytes, ...] = ()

    def append(self, leaves: Iterable[bytes]) -> "Tree":
        """Return the tree with these leaf hashes added; a subtree is joined with its equal."""
        size, subtrees = self.size, list(self.subtrees)
        for leaf in leaves:
            node, carry = leaf, size
            while carry & 1:
                node = node_hash(subtrees.pop(), node)
                carry >>= 1
            subtrees.append(node)
            size += 1
        return Tree(size, tuple(subtrees))

    @property
    def root(self) -> bytes:
        if not self.subtrees:
            return EMPTY_ROOT
        root = self.subtrees[-1]
        for subtree in reversed(self.subtrees[:-1]):
            root = node_hash(subtree, root)
        return root


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A signed statement: the log had this size and this root at this instant."""

    checkpoint_id: UUID
    log_origin: str
    tree_size: int
    root_hash: bytes
    signed_at: datetime
    key_id: str
    algorithm: str
    signature: bytes

    @property
    def signed_text(self) -> bytes:
        return signed_text(self.log_origin, self.tree_size, self.root_hash)


def signed_text(log_origin: str, tree_size: int, root_hash: bytes) -> bytes:
    """Return the bytes that are signed: the body of a C2SP tlog-checkpoint, root in hexadecimal."""
    return f"{log_origin}\n{tree_size}\n{root_hash.hex()}\n".encode()
