"""Who may be meant: help for a person, without servers."""

from dataclasses import replace
from datetime import date
from uuid import UUID, uuid4

import pytest
from clinic_lab_integration.candidates import MOST, Known, Person, Reason, rank

ANNA = Person(family="Тестова", given="Анна", birth_on=date(1990, 1, 2), sex="F")
REGISTERED = replace(ANNA, sex="female")


def known(person: Person, *found_by: Reason) -> Known:
    return Known(patient_id=uuid4(), person=person, found_by=frozenset(found_by))


def test_name_and_birth_date_are_reasons_and_the_likeliest_is_first() -> None:
    same, namesake = known(REGISTERED), known(replace(REGISTERED, birth_on=date(1950, 5, 5)))
    found = rank(ANNA, [namesake, same])
    assert [c.patient_id for c in found] == [same.patient_id, namesake.patient_id]
    assert found[0].reasons == (Reason.NAME, Reason.BIRTH_DATE)
    assert found[1].reasons == (Reason.NAME, Reason.OTHER_BIRTH_DATE)
    assert [c.is_likely for c in found] == [True, False]


@pytest.mark.parametrize("family", ["ТЕСТОВА", "тестова", " Тестова "])
def test_spelling_that_people_don_t_tell_apart_makes_no_difference(family: str) -> None:
    assert Reason.NAME in rank(replace(ANNA, family=family), [known(REGISTERED)])[0].reasons


def test_the_same_number_of_another_authority_is_worth_asking_about() -> None:
    other = known(Person(family="Иная", given="Вера"), Reason.NUMBER_OF_ANOTHER_AUTHORITY)
    [found] = rank(ANNA, [other])
    assert found.is_likely


def test_what_speaks_against_somebody_is_said() -> None:
    [found] = rank(ANNA, [known(replace(REGISTERED, sex="male"))])
    assert Reason.OTHER_SEX in found.reasons
    [unknown] = rank(replace(ANNA, sex="U"), [known(replace(REGISTERED, sex="male"))])
    assert Reason.OTHER_SEX not in unknown.reasons


def test_those_for_whom_nothing_speaks_are_left_out() -> None:
    nobody = Person(family="Иная", given="Вера", birth_on=date(2000, 1, 1), sex="female")
    assert rank(ANNA, [known(nobody)]) == []
    assert rank(Person(), [known(Person())]) == []


def test_a_common_name_makes_no_endless_list() -> None:
    found = rank(ANNA, [known(REGISTERED) for _ in range(MOST + 5)])
    assert len(found) == MOST
    assert [c.patient_id for c in found] == sorted(c.patient_id for c in found)
    assert isinstance(found[0].patient_id, UUID)
