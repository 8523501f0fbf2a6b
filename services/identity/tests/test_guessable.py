"""Passwords that anybody would try, and those that nobody would."""

import hashlib
from pathlib import Path

import pytest
from clinic_identity.domain import AccountKind, WeakPasswordError, check_password
from clinic_identity.guessable import BreachedPasswords, is_guessable
from hypothesis import given
from hypothesis import strategies as st

CONTEXT = ("testina.vracheva@example.org", "Polyclinic", "Vracheva", "Testina")


@pytest.mark.parametrize(
    "password",
    [
        "Password2024!",
        "password123456",
        "P@ssw0rd!P@ssw0rd!",
        "qwertyqwerty123",
        "QwertyUIOP2025",
        "iloveyou-forever",
        "Summer2026Summer",
        "111111222222333333",
        "123456789012345",
        "abcdefghijklmnop",
        "Vracheva1985!!",
        "Testina.Vracheva",
        "polyclinic-2026",
        "doctor-testina-1",
        "ПарольПароль12",
        "йцукенйцукен77",
    ],
)
def test_common_words_names_and_rows_of_keys_are_guessed(password: str) -> None:
    assert is_guessable(password, CONTEXT)


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery staple",
        "a new and long password",
        "only-for-these-tests",
        "kR7v-qmPz2-wXt9",
        "мой дядя самых честных",
        "😀🐘🌵🚲🎻🧭🪁🥝 and a password",
    ],
)
def test_what_no_list_explains_is_accepted(password: str) -> None:
    assert not is_guessable(password, CONTEXT)


@given(st.text(max_size=300))
def test_every_text_is_judged_without_an_error(password: str) -> None:
    assert is_guessable(password, (password,)) in {True, False}


def test_a_guessable_password_is_refused_with_the_reason() -> None:
    with pytest.raises(WeakPasswordError) as refused:
        check_password("Password2024!", kind=AccountKind.STAFF, login="anna.testova@example.org")
    assert refused.value.reasons == ["guessable"]


@pytest.mark.parametrize("ending", ["\n", ":3\n", ":17\r\n"])
def test_a_password_from_a_breach_is_found_in_the_file(tmp_path: Path, ending: str) -> None:
    known = [f"leaked passphrase {number}" for number in range(97)]
    hashes = sorted(hashlib.sha1(one.encode(), usedforsecurity=False).hexdigest().upper() for one in known)
    file = tmp_path / "breached.txt"
    file.write_bytes("".join(one + ending for one in hashes).encode())
    breached = BreachedPasswords(file)
    assert all(one in breached for one in known)
    assert not any(f"another passphrase {number}" in breached for number in range(97))
    with pytest.raises(WeakPasswordError) as refused:
        check_password(known[5], kind=AccountKind.PATIENT, login="+70000000001", breached=breached)
    assert refused.value.reasons == ["known-from-breaches"]
