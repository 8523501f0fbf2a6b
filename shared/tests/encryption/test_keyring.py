"""Values open in their own place, with their own key, unaltered; and nowhere else."""

import os

import pytest
from clinic_shared.encryption.ciphers import (
    KEY_BYTES,
    OVERHEAD_BYTES,
    KeyEncryptionKey,
    KeyId,
    Place,
    SealBrokenError,
    key_id_of,
)
from clinic_shared.encryption.keyring import Keyring, KeysUnavailableError
from clinic_shared.metrics import REGISTRY

HERE = Place("lab-integration", "intake", "1")
CONTENT = {"body": b"MSH|^~\\&|TESTLAB", "answer": None}


def made_key(name: bytes = b"key-0001") -> KeyEncryptionKey:
    return KeyEncryptionKey(KeyId(name), os.urandom(KEY_BYTES))


@pytest.fixture
def keyring() -> Keyring:
    return Keyring([made_key()])


def test_what_is_sealed_opens_again_and_shows_nothing(keyring):
    sealed = keyring.seal_row(HERE, CONTENT)
    assert b"TESTLAB" not in sealed.values["body"]
    assert sealed.values["answer"] is None
    assert len(sealed.values["body"] or b"") == len(CONTENT["body"] or b"") + OVERHEAD_BYTES
    assert keyring.open_row(HERE, sealed.data_key, sealed.values) == CONTENT


def test_what_was_stored_in_clear_is_read_as_it_is(keyring):
    assert keyring.open_row(HERE, None, CONTENT) == CONTENT


def test_the_same_value_never_looks_the_same(keyring):
    rows = [keyring.seal_row(HERE, CONTENT) for _ in range(1000)]
    assert len({row.values["body"] for row in rows}) == len({row.data_key for row in rows}) == 1000


def test_every_altered_byte_is_noticed(keyring):
    sealed = keyring.seal_row(HERE, {"body": b"value"})
    for stored, name in ((sealed.values["body"], "body"), (sealed.data_key, "key")):
        for position in range(len(stored)):
            altered = bytearray(stored)
            altered[position] ^= 1
            values = {"body": bytes(altered) if name == "body" else sealed.values["body"]}
            key = bytes(altered) if name == "key" else sealed.data_key
            with pytest.raises((SealBrokenError, KeysUnavailableError)):
                keyring.open_row(HERE, key, values)


@pytest.mark.parametrize("cut", [0, 1, 8, 20, OVERHEAD_BYTES - 1, OVERHEAD_BYTES])
def test_what_was_cut_off_is_noticed(keyring, cut):
    sealed = keyring.seal_row(HERE, {"body": b"value"})
    with pytest.raises(SealBrokenError):
        keyring.open_row(HERE, sealed.data_key, {"body": sealed.values["body"][:cut]})
    with pytest.raises(SealBrokenError):
        keyring.open_row(HERE, sealed.data_key[:cut], {"body": sealed.values["body"]})


@pytest.mark.parametrize(
    "elsewhere",
    [
        Place("billing", "intake", "1"),
        Place("lab-integration", "held", "1"),
        Place("lab-integration", "intake", "2"),
    ],
)
def test_what_was_moved_elsewhere_does_not_open(keyring, elsewhere):
    sealed = keyring.seal_row(HERE, {"body": b"value"})
    with pytest.raises(SealBrokenError):
        keyring.open_row(elsewhere, sealed.data_key, sealed.values)


def test_two_columns_of_a_row_cannot_be_swapped(keyring):
    sealed = keyring.seal_row(HERE, {"body": b"value", "answer": b"other"})
    with pytest.raises(SealBrokenError):
        keyring.open_row(HERE, sealed.data_key, {"body": sealed.values["answer"]})


def test_a_value_with_another_rows_key_does_not_open(keyring):
    one, other = keyring.seal_row(HERE, CONTENT), keyring.seal_row(HERE, CONTENT)
    with pytest.raises(SealBrokenError):
        keyring.open_row(HERE, other.data_key, one.values)


def test_after_a_rotation_the_old_opens_and_the_new_key_wraps(keyring):
    old, new = made_key(b"key-0001"), made_key(b"key-0002")
    keyring.take([old])
    sealed = keyring.seal_row(HERE, CONTENT)
    keyring.take([old, new])
    assert keyring.open_row(HERE, sealed.data_key, sealed.values) == CONTENT
    rewrapped = keyring.rewrap(sealed.data_key, HERE)
    assert (key_id_of(sealed.data_key, HERE), key_id_of(rewrapped, HERE)) == (b"key-0001", b"key-0002")
    keyring.take([new])
    assert keyring.open_row(HERE, rewrapped, sealed.values) == CONTENT
    with pytest.raises(KeysUnavailableError):
        keyring.open_row(HERE, sealed.data_key, sealed.values)


def test_when_the_lease_ends_nothing_is_opened_and_nothing_stored_in_clear():
    now = [0.0]
    keyring = Keyring([made_key()], lease_seconds=300, monotonic=lambda: now[0])
    sealed = keyring.seal_row(HERE, CONTENT)
    now[0] = 300.1
    with pytest.raises(KeysUnavailableError):
        keyring.open_row(HERE, sealed.data_key, sealed.values)
    with pytest.raises(KeysUnavailableError):
        keyring.seal_row(HERE, CONTENT)


def test_switched_off_it_stores_in_clear_and_still_opens():
    key = made_key()
    sealed = Keyring([key]).seal_row(HERE, CONTENT)
    off = Keyring([key], encrypting=False)
    assert off.open_row(HERE, sealed.data_key, sealed.values) == CONTENT
    assert off.seal_row(HERE, CONTENT).data_key is None


def test_without_keys_nothing_is_stored():
    with pytest.raises(KeysUnavailableError):
        Keyring().seal_row(HERE, CONTENT)


def test_each_broken_seal_is_counted_for_the_alarm(keyring):
    def counted():
        return REGISTRY.get_sample_value("clinic_seals_broken_total", {"table": "intake"}) or 0

    before = counted()
    sealed = keyring.seal_row(HERE, {"body": b"value"})
    for key, value in ((sealed.data_key, b"altered"), (b"altered", sealed.values["body"])):
        with pytest.raises(SealBrokenError):
            keyring.open_row(HERE, key, {"body": value})
    assert counted() == before + 2
