"""What is sealed for one reader opens for them, in its place, as it was, and for nobody else."""

import pytest
from clinic_shared.encryption.ciphers import SealBrokenError
from clinic_shared.encryption.one_way import new_key_pair, open_sealed, seal_for


def test_only_the_reader_opens_what_was_sealed_for_them() -> None:
    private_key, public_key = new_key_pair()
    box = seal_for(public_key, b"fictitious", "here/1")
    assert open_sealed(private_key, box, "here/1") == b"fictitious"
    assert b"fictitious" not in box
    another, _ = new_key_pair()
    for key, context in ((another, "here/1"), (private_key, "here/2")):
        with pytest.raises(SealBrokenError):
            open_sealed(key, box, context)


def test_two_boxes_of_the_same_have_nothing_in_common() -> None:
    _, public_key = new_key_pair()
    one, other = (seal_for(public_key, b"fictitious", "here") for _ in range(2))
    assert one[1:] != other[1:]


@pytest.mark.parametrize("position", [0, 1, 32, 33, -1])
def test_a_changed_byte_anywhere_is_noticed(position: int) -> None:
    private_key, public_key = new_key_pair()
    box = bytearray(seal_for(public_key, b"fictitious", "here"))
    box[position] ^= 1
    with pytest.raises(SealBrokenError):
        open_sealed(private_key, bytes(box), "here")


def test_what_is_no_box_is_refused() -> None:
    private_key, _ = new_key_pair()
    for box in (b"", b"\x01", bytes(60)):
        with pytest.raises(SealBrokenError):
            open_sealed(private_key, box, "here")
