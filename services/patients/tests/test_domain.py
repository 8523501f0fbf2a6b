"""The registry's rules, without a database."""

# Cyrillic is what is tested

from dataclasses import replace
from datetime import UTC, date, datetime
from uuid import UUID

import pytest
from clinic_patients.chart_domain import (
    Diagnosis,
    DiagnosisRank,
    EntryKind,
    PrimaryDiagnosisError,
    check_diagnoses,
    kinds_open_to,
)
from clinic_patients.domain import (
    BirthDateError,
    Identifier,
    IllegalPatientStatusError,
    Patient,
    PatientId,
    PatientStatus,
    PersonName,
    Sex,
    check_birth,
    record_number,
)
from clinic_patients.names import (
    LONGEST_BEGINNING,
    beginning_term,
    beginnings,
    identifier_term,
    words_to_match,
)
from clinic_patients.phones import NotAPhoneError, to_e164
from clinic_shared import contracts
from clinic_shared.folding import fold, name_words
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)
ANNA = Patient(
    patient_id=PatientId(UUID(int=1)),
    version=1,
    status=PatientStatus.ACTIVE,
    centre_id=None,
    name=PersonName(family="Тестова-Примерова", given="Анна"),
    birth_on=date(1990, 1, 1),
    sex=Sex.FEMALE,
    phones=("+70000000001",),
    emails=(),
    language="ru",
    identifiers=(Identifier(authority="TEST", type=None, value="T-1"),),
    registered_at=NOW,
    updated_at=NOW,
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Семёнов", "СЕМЕНОВ"),
        ("Семе\u0308нов", "семенов"),
        ("Müller", "muller"),
        ("Strauß", "STRAUSS"),
        ("O’Testy", "o'testy"),
    ],
)
def test_names_that_people_take_for_the_same_fold_to_the_same(one: str, other: str) -> None:
    assert fold(one) == fold(other)


def test_short_i_stays_another_letter() -> None:
    assert fold("Тестой") != fold("Тестои")


def test_a_double_barrelled_name_is_found_by_either_part() -> None:
    assert name_words("Тестова-Примерова") == ["тестова", "примерова"]


def test_a_prefix_of_another_prefix_needs_a_word_of_its_own() -> None:
    assert words_to_match(["иванов", "иван"]) == [("иванов", 1), ("иван", 2)]


@given(st.lists(st.text("аб", min_size=1, max_size=3), max_size=4), st.data())
def test_counting_prefixes_is_the_same_as_pairing_words(asked: list[str], data: st.DataObject) -> None:
    words = data.draw(st.lists(st.text("аб", min_size=1, max_size=4), unique=True, max_size=5))
    counted = all(
        sum(word.startswith(prefix) for word in words) >= needed for prefix, needed in words_to_match(asked)
    )
    assert counted == _can_be_paired(asked, words)


def _can_be_paired(asked: list[str], words: list[str]) -> bool:
    if not asked:
        return True
    first, *others = asked
    return any(
        _can_be_paired(others, [w for w in words if w != word]) for word in words if word.startswith(first)
    )


def test_search_terms_of_different_kinds_cannot_meet() -> None:
    assert ANNA.name_words() == {"тестова", "примерова", "анна"}
    assert ANNA.exact_terms() == {"+70000000001", "=1990-01-01", "#4:TEST|T-1"}


@given(
    st.lists(st.text("аб", min_size=1, max_size=3), max_size=4),
    st.sets(st.text("аб", min_size=1, max_size=4), max_size=5),
)
def test_equal_beginnings_say_what_pairing_words_says(asked: list[str], words: set[str]) -> None:
    equal = {beginning_term(prefix, needed) for prefix, needed in words_to_match(asked)} <= beginnings(words)
    assert equal == _can_be_paired(asked, list(words))


def test_words_longer_than_sixteen_letters_are_compared_by_those() -> None:
    assert beginning_term("александропольский", 1) in beginnings({"александропольская"})
    assert len(beginnings({"александропольская"})) == LONGEST_BEGINNING


def test_an_authority_cannot_be_read_as_part_of_a_value() -> None:
    assert identifier_term("A|B", "C") != identifier_term("A", "B|C")


@pytest.mark.parametrize("written", ["8 (000) 000-00-01", "+7 000 000-00-01", "0000000001", " +70000000001 "])
def test_a_phone_is_the_same_however_it_is_written(written: str) -> None:
    assert to_e164(written, region="RU") == "+70000000001"


@pytest.mark.parametrize("written", ["12", "call me", "+7 000 000 00 01 ext. 5", "+" * 40, "8" * 39])
def test_what_cannot_be_dialled_is_refused(written: str) -> None:
    with pytest.raises(NotAPhoneError):
        to_e164(written, region="RU")


def test_a_birth_in_the_future_is_refused() -> None:
    check_birth(date(2026, 3, 2), now=NOW)
    with pytest.raises(BirthDateError):
        check_birth(date(2026, 3, 4), now=NOW)


def test_nobody_is_older_than_the_oldest_person() -> None:
    with pytest.raises(BirthDateError):
        check_birth(date(1879, 12, 31), now=NOW)


@given(st.integers(0, 99_999_998), st.integers(0, 8))
def test_a_mistyped_digit_of_a_record_number_shows(serial: int, place: int) -> None:
    number = record_number(serial)
    mistyped = number[:place] + str((int(number[place]) + 1) % 10) + number[place + 1 :]
    assert record_number(int(mistyped[:8])) != mistyped


def test_statuses_move_as_the_taxonomy_says() -> None:
    statuses = contracts.load().statuses("patient")
    for before in PatientStatus:
        for after in PatientStatus:
            if after is before or PatientStatus.MERGED in (before, after):
                continue
            patient = replace(ANNA, status=before)
            changed = replace(ANNA, status=after)
            if after.value in statuses[before.value]["next"]:
                assert patient.succeeded_by(changed, now=NOW).version == 2
            else:
                with pytest.raises(IllegalPatientStatusError):
                    patient.succeeded_by(changed, now=NOW)


def test_a_record_that_is_set_aside_gives_its_identifiers_back() -> None:
    assert ANNA.identifiers_in_force
    assert not replace(ANNA, status=PatientStatus.INACTIVE).identifiers_in_force


def test_a_change_of_contacts_is_told_from_a_change_of_person() -> None:
    assert replace(ANNA, phones=("+70000000002",), version=2).differs_only_in_contacts(ANNA)
    assert not replace(ANNA, birth_on=None).differs_only_in_contacts(ANNA)


def test_two_primary_diagnoses_are_refused() -> None:
    primary = [Diagnosis(code=code, display=None, rank=DiagnosisRank.PRIMARY) for code in ("L20.9", "E66.0")]
    check_diagnoses(primary[:1])
    with pytest.raises(PrimaryDiagnosisError):
        check_diagnoses(primary)


def test_a_doctor_s_timeline_shows_no_money_and_a_biller_s_no_results() -> None:
    scopes = contracts.scopes_by_role()
    assert not {EntryKind.INVOICE, EntryKind.PAYMENT} & set(kinds_open_to(scopes["doctor"]))
    assert EntryKind.LAB_RESULT not in kinds_open_to(scopes["biller"])
    assert set(kinds_open_to(scopes["patient"])) == set(EntryKind)
