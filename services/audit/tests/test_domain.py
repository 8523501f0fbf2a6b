"""The Merkle tree against an independent implementation."""

import hashlib

import pymerkle
from clinic_audit.domain import EMPTY_ROOT, Tree, leaf_hash
from hypothesis import given
from hypothesis import strategies as st


def test_the_empty_tree_has_the_root_that_the_rfc_gives_it() -> None:
    assert Tree().root == EMPTY_ROOT == hashlib.sha256(b"").digest()


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=70))
def test_roots_agree_with_another_implementation_of_rfc_6962(records: list[bytes]) -> None:
    other = pymerkle.InmemoryTree(algorithm="sha256")
    for entry in records:
        other.append_entry(entry)
    assert Tree().append(leaf_hash(entry) for entry in records).root == other.get_root()


@given(st.lists(st.binary(max_size=8), max_size=40), st.integers(0, 40))
def test_appending_in_two_batches_is_appending_in_one(records: list[bytes], cut: int) -> None:
    leaves = [leaf_hash(entry) for entry in records]
    assert Tree().append(leaves[:cut]).append(leaves[cut:]) == Tree().append(leaves)
