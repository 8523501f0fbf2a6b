"""The rules of identity, without a database."""

from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from clinic_identity.domain import (
    AccountId,
    AccountKind,
    InvalidLoginError,
    Session,
    SessionId,
    SessionLimits,
    WeakPasswordError,
    check_password,
    delay_after,
    fold_login,
    next_whole_second,
    parse_login,
)
from clinic_identity.sessions import token_lifetime
from clinic_shared.ids import uuid7
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("  Anna.Testova@Example.ORG ", "anna.testova@example.org"),
        ("+7 (000) 000-00-01", "+70000000001"),
        ("e\u0301va@example.org", "éva@example.org"),
    ],
)
def test_a_login_has_one_spelling(typed: str, kept: str) -> None:
    assert fold_login(typed) == kept
    assert parse_login(typed, phone_allowed=True) == kept


@pytest.mark.parametrize(
    "typed", ["", "anna", "anna@", "@example.org", "a b@example.org", "+0123", "8 000 1"]
)
def test_what_is_neither_address_nor_number_is_refused(typed: str) -> None:
    with pytest.raises(InvalidLoginError):
        parse_login(typed, phone_allowed=True)


def test_staff_log_in_with_an_address_only() -> None:
    with pytest.raises(InvalidLoginError):
        parse_login("+70000000001", phone_allowed=False)


@given(st.text(max_size=300))
def test_folding_a_login_twice_changes_nothing(typed: str) -> None:
    assert fold_login(fold_login(typed)) == fold_login(typed)


def reasons_against(password: str, kind: AccountKind = AccountKind.STAFF) -> list[str]:
    try:
        check_password(password, kind=kind, login="anna.testova@example.org")
    except WeakPasswordError as error:
        return cast("list[str]", error.extensions["reasons"])
    return []


def test_passwords_are_measured_in_code_points_after_normalisation() -> None:
    assert reasons_against("twelve chars") == []
    assert reasons_against("eleven char") == ["too-short"]
    assert reasons_against("e\u0301leven char") == ["too-short"]  # two code points, one after NFC
    assert reasons_against("zebra quilt " * 21 + "1234") == []
    assert reasons_against("zebra quilt " * 21 + "12345") == ["too-long"]


def test_patients_need_longer_passwords_as_they_have_no_second_factor() -> None:
    assert reasons_against("twelve chars", AccountKind.PATIENT) == ["too-short"]
    assert reasons_against("fifteen of them", AccountKind.PATIENT) == []


def test_a_password_that_holds_the_login_or_one_character_is_refused() -> None:
    assert reasons_against("my Anna.Testova!") == ["contains-login"]
    assert reasons_against("aaaaaaaaaaaaaa") == ["repetitive"]


def test_delays_begin_with_the_fifth_failure_double_and_end_growing_at_fifteen_minutes() -> None:
    seconds = [delay_after(failures).total_seconds() for failures in range(17)]
    assert seconds[:9] == [0, 0, 0, 0, 0, 1, 2, 4, 8]
    assert seconds[-1] == delay_after(10_000).total_seconds() == 900


def test_a_token_does_not_outlive_its_session() -> None:
    assert token_lifetime(NOW, until=NOW + timedelta(hours=1)) == 300
    assert token_lifetime(NOW, until=NOW + timedelta(seconds=90)) == 90


def test_the_instant_that_divides_tokens_is_a_whole_second() -> None:
    assert next_whole_second(NOW) == NOW
    assert next_whole_second(NOW + timedelta(microseconds=1)) == NOW + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("idle_minutes", "old_minutes", "live"),
    [(14, 60, True), (15, 60, False), (1, 719, True), (1, 720, False)],
)
def test_a_session_ends_when_idle_and_at_its_longest_life(
    idle_minutes: int, old_minutes: int, live: bool
) -> None:
    limits = SessionLimits(idle=timedelta(minutes=15), longest=timedelta(hours=12))
    started_at = NOW - timedelta(minutes=old_minutes)
    session = Session(
        session_id=SessionId(uuid7()),
        account_id=AccountId(uuid7()),
        started_at=started_at,
        last_used_at=NOW - timedelta(minutes=idle_minutes),
        expires_at=started_at + limits.longest,
    )
    assert session.is_live(NOW, limits) is live
