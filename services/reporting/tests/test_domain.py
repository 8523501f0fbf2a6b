"""The pure rules: days of a calendar, who may count what, and folding."""

from datetime import UTC, date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from clinic_reporting.domain import (
    AppointmentStatus,
    Centre,
    Department,
    InvalidPeriodError,
    Level,
    Part,
    Period,
    Place,
    scope_of,
)
from clinic_reporting.figures import (
    AppointmentCell,
    LaboratoryCell,
    Movement,
    fold_appointments,
    fold_laboratory,
    fold_revenue,
    ratio,
)
from clinic_reporting.figures import MoneyCell as Money
from clinic_shared.principal import Principal
from hypothesis import given
from hypothesis import strategies as st

MOSCOW = Centre(UUID(int=1), "Moscow", ZoneInfo("Europe/Moscow"))
BERLIN = Centre(UUID(int=2), "Berlin", ZoneInfo("Europe/Berlin"))
DEPARTMENTS = [Department(UUID(int=10 + n), MOSCOW.centre_id, f"Department {n}") for n in range(3)]

PLACES = st.builds(
    Place,
    st.sampled_from([MOSCOW.centre_id, BERLIN.centre_id]),
    st.sampled_from([*(d.department_id for d in DEPARTMENTS), None]),
)
COUNTS = st.integers(0, 10**9)


def test_a_day_with_a_clock_change_has_its_real_length() -> None:
    spring = Period(date(2026, 3, 29), date(2026, 3, 30)).window(BERLIN.zone)
    autumn = Period(date(2026, 10, 25), date(2026, 10, 26)).window(BERLIN.zone)
    assert spring.until_at - spring.from_at == timedelta(hours=23)
    assert autumn.until_at - autumn.from_at == timedelta(hours=25)
    assert spring.from_at == datetime(2026, 3, 28, 23, tzinfo=UTC)


@given(st.dates(date(2020, 1, 1), date(2030, 1, 1)), st.integers(1, 100), st.integers(1, 100))
def test_periods_that_follow_each_other_leave_no_instant_out_and_share_none(
    day: date, first: int, second: int
) -> None:
    middle = day + timedelta(days=first)
    end = middle + timedelta(days=second)
    before, after = (
        Period(day, middle).window(BERLIN.zone),
        Period(middle, end).window(BERLIN.zone),
    )
    assert before.until_at == after.from_at
    assert Period(day, end).window(BERLIN.zone).until_at == after.until_at


@pytest.mark.parametrize("days", [0, -1, 367])
def test_a_period_has_from_one_to_366_days(days: int) -> None:
    with pytest.raises(InvalidPeriodError):
        Period(date(2026, 3, 2), date(2026, 3, 2) + timedelta(days=days))


NOWHERE: frozenset[UUID] = frozenset()


def manager(centre_ids: frozenset[UUID] = NOWHERE, department_ids: frozenset[UUID] = NOWHERE) -> Principal:
    return Principal(subject=UUID(int=99), kind="staff", centre_ids=centre_ids, department_ids=department_ids)


def parts(caller: Principal, level: Level) -> tuple[Part, ...]:
    return scope_of(caller, level, centres=[MOSCOW, BERLIN], departments=DEPARTMENTS).parts


def test_who_works_nowhere_counts_nothing() -> None:
    assert [parts(manager(), level) for level in Level] == [(), ()]


def test_who_works_in_a_centre_counts_all_of_it() -> None:
    caller = manager(centre_ids=frozenset({MOSCOW.centre_id}))
    assert [parts(caller, level) for level in Level] == [(Part(MOSCOW),)] * 2


def test_who_works_in_a_department_counts_that_and_no_centre() -> None:
    own = frozenset({DEPARTMENTS[1].department_id})
    caller = manager(department_ids=own)
    assert parts(caller, Level.DEPARTMENT) == (Part(MOSCOW, own),)
    assert parts(caller, Level.CENTRE) == ()


@pytest.mark.parametrize(("part", "whole", "expected"), [(1, 3, 0.3333), (0, 5, 0.0), (0, 0, None)])
def test_a_rate_of_nothing_is_unknown_and_not_zero(part: int, whole: int, expected: float | None) -> None:
    assert ratio(part, whole) == expected


APPOINTMENTS = st.lists(
    st.builds(
        AppointmentCell,
        place=PLACES,
        service_code=st.sampled_from(["consultation", "procedure"]),
        status=st.sampled_from(AppointmentStatus),
        appointments=COUNTS,
        seconds=COUNTS,
    )
)


@given(APPOINTMENTS)
def test_appointments_of_a_centre_are_those_of_its_departments(cells: list[AppointmentCell]) -> None:
    centres = {line.place: line for line in fold_appointments(cells, Level.CENTRE)}
    for place, line in centres.items():
        own = [d for d in fold_appointments(cells, Level.DEPARTMENT) if d.place.centre_id == place.centre_id]
        assert line.by_status == {s: sum(d.by_status[s] for d in own) for s in AppointmentStatus}
        assert line.total == sum(d.total for d in own)
        assert line.seconds.booked == sum(d.seconds.booked for d in own)
    assert sum(line.total for line in centres.values()) == sum(cell.appointments for cell in cells)


@given(APPOINTMENTS)
def test_services_of_a_line_add_up_to_its_statuses(cells: list[AppointmentCell]) -> None:
    for line in fold_appointments(cells, Level.DEPARTMENT):
        for status, count in line.by_status.items():
            assert count == sum(counts[status] for counts in line.by_service.values())


@given(
    st.lists(
        st.builds(
            Money,
            place=PLACES,
            currency=st.sampled_from(["RUB", "KZT"]),
            movement=st.sampled_from(Movement),
            documents=COUNTS,
            amount_minor=COUNTS,
        )
    )
)
def test_money_of_a_centre_is_that_of_its_departments_by_currency(cells: list[Money]) -> None:
    for line in fold_revenue(cells, Level.CENTRE):
        own = [
            d
            for d in fold_revenue(cells, Level.DEPARTMENT)
            if (d.place.centre_id, d.currency) == (line.place.centre_id, line.currency)
        ]
        assert line.amount_minor == {m: sum(d.amount_minor[m] for d in own) for m in Movement}
        assert line.net_minor == sum(d.net_minor for d in own)


@given(st.lists(st.builds(LaboratoryCell, place=PLACES, orders=COUNTS, results=COUNTS, critical=COUNTS)))
def test_laboratory_of_a_centre_is_that_of_its_departments(cells: list[LaboratoryCell]) -> None:
    for line in fold_laboratory(cells, Level.CENTRE, {}):
        own = [cell for cell in cells if cell.place.centre_id == line.place.centre_id]
        assert line.orders == sum(cell.orders for cell in own)
        assert line.critical == sum(cell.critical for cell in own)
