"""Who is asked, and who next: without servers."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from clinic_lab_integration.escalation import Duty, OwnerRole, ladder, next_rung

DOCTOR, HEAD, ON_CALL = uuid4(), uuid4(), uuid4()
DUTY = Duty(department_id=uuid4(), head_id=HEAD, on_call_id=ON_CALL)
ORDERED: tuple[OwnerRole, UUID | None] = (OwnerRole.ORDERING, DOCTOR)


def asked(rungs):
    return [(rung.role, rung.owner_id) for rung in rungs]


def test_the_ordering_doctor_then_the_head_then_whoever_is_on_call() -> None:
    rungs = ladder(ORDERED, DUTY, seconds=3600)
    assert asked(rungs) == [ORDERED, (OwnerRole.HEAD, HEAD), (OwnerRole.ON_CALL, ON_CALL)]
    assert [rung.patience for rung in rungs] == [timedelta(hours=1), *[timedelta(minutes=30)] * 2]


@pytest.mark.parametrize(
    ("first", "duty", "absent", "owners"),
    [
        ((OwnerRole.ORDERING, None), DUTY, (), [HEAD, ON_CALL]),
        (ORDERED, None, (), [DOCTOR, None]),
        (ORDERED, DUTY, (DOCTOR, HEAD), [ON_CALL]),
        (ORDERED, DUTY, (DOCTOR, HEAD, ON_CALL), [None]),
        ((OwnerRole.ORDERING, HEAD), DUTY, (), [HEAD, ON_CALL]),
        ((OwnerRole.ORDERING, None), None, (), [None]),
    ],
)
def test_whoever_is_missing_is_left_out_and_somebody_is_always_asked(first, duty, absent, owners) -> None:
    rungs = ladder(first, duty, seconds=3600, absent=absent)
    assert [rung.owner_id for rung in rungs] == owners
    assert rungs[-1].role is OwnerRole.ON_CALL
    assert rungs[0].patience == timedelta(hours=1)


def test_the_last_one_is_asked_again_and_again() -> None:
    rungs = ladder(ORDERED, DUTY, seconds=3600)
    role, owner = ORDERED
    seen = []
    for _ in range(5):
        rung = next_rung(rungs, role, owner)
        role, owner = rung.role, rung.owner_id
        seen.append(owner)
    assert seen == [HEAD, ON_CALL, ON_CALL, ON_CALL, ON_CALL]


def test_a_ladder_that_got_shorter_meanwhile_still_leads_up() -> None:
    assert next_rung(ladder(ORDERED, None, seconds=3600), OwnerRole.HEAD, HEAD).role is OwnerRole.ON_CALL


def test_nobody_waits_less_than_a_minute() -> None:
    assert ladder(ORDERED, DUTY, seconds=60)[1].patience == timedelta(minutes=1)
