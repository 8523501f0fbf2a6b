from __future__ import annotations

import pytest
from clinic_gateway.breaker import BreakerPolicy, Circuit, CircuitBreaker
from clinic_gateway.errors import CircuitOpenError
from hypothesis import given
from hypothesis import strategies as st

POLICY = BreakerPolicy()


@pytest.fixture
def breaker() -> CircuitBreaker:
    """Without jitter: it stays open for exactly as long as the policy says."""
    return CircuitBreaker(POLICY, jitter=lambda: 1.0)


def state_of(breaker: CircuitBreaker) -> Circuit:
    """Read it anew: a type checker takes the property for a constant."""
    return breaker.state


def fail(breaker: CircuitBreaker, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        breaker.failed(breaker.admit(now), now)


def test_so_many_failures_in_a_row_open_it_and_not_one_fewer(breaker: CircuitBreaker) -> None:
    fail(breaker, POLICY.failures_in_a_row - 1)
    assert state_of(breaker) is Circuit.CLOSED
    fail(breaker, 1)
    with pytest.raises(CircuitOpenError) as refusal:
        breaker.admit(0.5)
    assert refusal.value.retry_after_seconds == 1


def test_failures_among_successes_dont_open_it(breaker: CircuitBreaker) -> None:
    for number in range(1000):
        ticket = breaker.admit(0.0)
        if number % 3:
            breaker.succeeded(ticket)
        else:
            breaker.failed(ticket, 0.0)
    assert state_of(breaker) is Circuit.CLOSED


def test_a_success_makes_up_for_failures_before(breaker: CircuitBreaker) -> None:
    for _ in range(20):
        fail(breaker, 2)
        for _ in range(3):
            breaker.succeeded(breaker.admit(0.0))
    assert state_of(breaker) is Circuit.CLOSED


def test_one_request_at_a_time_tries_whether_it_is_well_again(breaker: CircuitBreaker) -> None:
    fail(breaker, 5)
    trial = breaker.admit(1.0)
    assert state_of(breaker) is Circuit.HALF_OPEN
    with pytest.raises(CircuitOpenError):
        breaker.admit(1.0)
    breaker.succeeded(trial)
    breaker.succeeded(breaker.admit(1.1))
    assert state_of(breaker) is Circuit.CLOSED


def test_a_trial_that_fails_doubles_the_rest_up_to_the_longest(breaker: CircuitBreaker) -> None:
    fail(breaker, 5)
    now, rests = 0.0, []
    for _ in range(8):
        with pytest.raises(CircuitOpenError) as refusal:
            breaker.admit(now)
        rests.append(refusal.value.retry_after_seconds)
        now += rests[-1] or 0
        fail(breaker, 1, now)
    assert rests == [1, 2, 4, 8, 15, 15, 15, 15]


def test_once_well_again_it_forgets_how_long_it_was_ill(breaker: CircuitBreaker) -> None:
    fail(breaker, 5)
    fail(breaker, 1, 1.0)
    for _ in range(POLICY.successes_to_close):
        breaker.succeeded(breaker.admit(10.0))
    fail(breaker, 5, 20.0)
    assert breaker.admit(21.0)


def test_a_trial_whose_caller_went_away_makes_room_for_the_next(breaker: CircuitBreaker) -> None:
    fail(breaker, 5)
    breaker.abandoned(breaker.admit(1.0))
    assert breaker.admit(1.0)


def test_what_comes_back_late_says_nothing_about_now(breaker: CircuitBreaker) -> None:
    late = [breaker.admit(0.0) for _ in range(4)]
    fail(breaker, 5)
    breaker.succeeded(late[0])
    assert state_of(breaker) is Circuit.OPEN
    trial = breaker.admit(1.0)
    breaker.failed(late[1], 1.0)
    breaker.abandoned(late[2])
    assert state_of(breaker) is Circuit.HALF_OPEN
    with pytest.raises(CircuitOpenError):
        breaker.admit(1.0)
    breaker.succeeded(trial)
    breaker.succeeded(late[3])
    assert state_of(breaker) is Circuit.HALF_OPEN


def test_replicas_dont_come_back_in_the_same_instant() -> None:
    first, second = CircuitBreaker(POLICY, jitter=lambda: 0.0), CircuitBreaker(POLICY, jitter=lambda: 1.0)
    for breaker in (first, second):
        fail(breaker, 5)
    assert first.admit(0.5)
    with pytest.raises(CircuitOpenError):
        second.admit(0.5)


@given(st.lists(st.tuples(st.sampled_from(["ok", "fail", "gone"]), st.floats(0, 30)), max_size=200))
def test_it_never_stays_shut_to_who_waits_long_enough(steps: list[tuple[str, float]]) -> None:
    breaker, now = CircuitBreaker(POLICY), 0.0
    for outcome, pause in steps:
        now += pause
        try:
            ticket = breaker.admit(now)
        except CircuitOpenError:
            continue
        if outcome == "ok":
            breaker.succeeded(ticket)
        elif outcome == "fail":
            breaker.failed(ticket, now)
        else:
            breaker.abandoned(ticket)
    breaker.admit(now + POLICY.longest_open_seconds)
