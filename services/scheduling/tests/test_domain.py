"""The rules of booking, without I/O."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from clinic_scheduling.domain import (
    Appointment,
    AppointmentId,
    AppointmentStatus,
    Availability,
    AvailabilityException,
    IllegalMoveError,
    Interval,
    ResourceId,
    ServiceId,
    WeeklyHours,
    merge,
    starts_within,
    subtract,
)
from clinic_shared.ids import uuid7
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)


def at(hour: int, minute: int = 0, *, day: int = 2, month: int = 3) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


@pytest.fixture
def appointment() -> Appointment:
    return Appointment(
        appointment_id=AppointmentId(uuid7()),
        version=1,
        status=AppointmentStatus.BOOKED,
        patient_id=uuid7(),
        practitioner_id=ResourceId(uuid7()),
        room_id=ResourceId(uuid7()),
        device_ids=(),
        service_id=ServiceId(uuid7()),
        service_code="consultation",
        centre_id=uuid7(),
        department_id=uuid7(),
        time=Interval(at(9), at(10)),
        referral_id=None,
        booked_through="registry",
        booked_at=NOW,
    )


def test_intervals_that_touch_do_not_overlap() -> None:
    assert not Interval(at(9), at(10)).overlaps(Interval(at(10), at(11)))
    assert Interval(at(9), at(10, 1)).overlaps(Interval(at(10), at(11)))


@pytest.mark.parametrize(
    ("status", "allowed"),
    [
        ("booked", {"confirmed", "arrived", "cancelled", "missed"}),
        ("confirmed", {"arrived", "cancelled", "missed"}),
        ("arrived", {"completed"}),
        ("completed", set()),
        ("cancelled", set()),
        ("missed", set()),
    ],
)
def test_a_status_leads_only_where_the_taxonomy_says(
    appointment: Appointment, status: str, allowed: set[str]
) -> None:
    here = replace(appointment, status=AppointmentStatus(status))
    reached = set()
    for target in AppointmentStatus:
        try:
            reached.add(here.moved_to(target, now=NOW).status.value)
        except IllegalMoveError:
            continue
    assert reached == allowed


def test_moving_on_counts_the_version_and_stamps_the_time(appointment: Appointment) -> None:
    arrived = appointment.moved_to(AppointmentStatus.ARRIVED, now=NOW)
    assert (arrived.version, arrived.arrived_at) == (2, NOW)


def test_rescheduling_voids_the_confirmation_of_the_old_time(appointment: Appointment) -> None:
    confirmed = appointment.moved_to(AppointmentStatus.CONFIRMED, now=NOW)
    moved = confirmed.rescheduled(Interval(at(11), at(12)), practitioner_id=None, room_id=None)
    assert moved.appointment_id == appointment.appointment_id
    assert (moved.status, moved.confirmed_at) == (AppointmentStatus.BOOKED, None)


def test_a_finished_appointment_is_not_rescheduled(appointment: Appointment) -> None:
    arrived = appointment.moved_to(AppointmentStatus.ARRIVED, now=NOW)
    with pytest.raises(IllegalMoveError):
        arrived.rescheduled(Interval(at(11), at(12)), practitioner_id=None, room_id=None)


def berlin(*exceptions: AvailabilityException) -> Availability:
    hours = [
        WeeklyHours(weekday=d, starts_local=time(9), ends_local=time(12), valid_from=date(2026, 1, 1))
        for d in range(7)
    ]
    return Availability(zone=ZoneInfo("Europe/Berlin"), weekly=hours, exceptions=exceptions)


def test_nine_o_clock_stays_nine_o_clock_across_daylight_saving() -> None:
    # Germany moves from UTC+1 to UTC+2 on 29 March 2026.
    before = berlin().open_intervals(Interval(at(0, day=28), at(23, day=28)))
    after = berlin().open_intervals(Interval(at(0, day=29), at(23, day=29)))
    assert [i.starts_at.hour for i in (*before, *after)] == [8, 7]


def test_hours_stop_before_the_day_they_are_valid_until() -> None:
    hours = WeeklyHours(
        weekday=0,
        starts_local=time(9),
        ends_local=time(12),
        valid_from=date(2026, 1, 1),
        valid_until=date(2026, 3, 9),
    )
    assert hours.applies_on(date(2026, 3, 2))
    assert not hours.applies_on(date(2026, 3, 9))


def test_leave_takes_hours_away_and_an_extra_session_adds_them() -> None:
    leave = AvailabilityException(time=Interval(at(9), at(10)), opens=False)
    extra = AvailabilityException(time=Interval(at(14), at(15)), opens=True)
    opened = berlin(leave, extra).open_intervals(Interval(at(0), at(23)))
    assert opened == [Interval(at(8), at(9)), Interval(at(10), at(11)), Interval(at(14), at(15))]


def test_an_appointment_may_span_two_sessions_that_touch() -> None:
    extra = AvailabilityException(time=Interval(at(11), at(12)), opens=True)
    assert berlin(extra).covers(Interval(at(10, 30), at(11, 30)))
    assert not berlin().covers(Interval(at(10, 30), at(11, 30)))


def test_slots_lie_on_the_grid_and_fit_before_the_end() -> None:
    free = [Interval(at(9), at(10))]
    starts = starts_within(free, duration=timedelta(minutes=30), not_before=at(9, 5))
    assert list(starts) == [at(9, 15), at(9, 30)]


minutes = st.integers(0, 600)
intervals = st.lists(
    st.tuples(minutes, st.integers(1, 120)).map(
        lambda pair: Interval(NOW + timedelta(minutes=pair[0]), NOW + timedelta(minutes=sum(pair)))
    ),
    max_size=8,
)


def minutes_of(these: list[Interval]) -> set[datetime]:
    return {
        i.starts_at + timedelta(minutes=m)
        for i in these
        for m in range(int((i.ends_at - i.starts_at).total_seconds() // 60))
    }


@given(intervals, intervals)
def test_subtracting_leaves_exactly_the_minutes_that_are_not_taken(
    opened: list[Interval], taken: list[Interval]
) -> None:
    rest = subtract(merge(opened), taken)
    assert minutes_of(rest) == minutes_of(opened) - minutes_of(taken)
    assert all(not a.overlaps(b) for a in rest for b in rest if a is not b)
