import pytest
from clinic_gateway.errors import TooManyRequestsError
from clinic_gateway.limits import RateLimit
from hypothesis import given
from hypothesis import strategies as st


def allowed(limit: RateLimit, key: str, at: float) -> bool:
    try:
        limit.check(key, at)
    except TooManyRequestsError:
        return False
    return True


def test_a_burst_is_allowed_and_then_the_rate_holds() -> None:
    limit = RateLimit("x", 10, 5)
    assert [allowed(limit, "a", 0.0) for _ in range(6)] == [True] * 5 + [False]
    assert allowed(limit, "a", 0.1)
    assert not allowed(limit, "a", 0.1)


def test_the_refusal_says_how_long_to_wait() -> None:
    limit = RateLimit("x", 2, 1)
    limit.check("a", 0.0)
    with pytest.raises(TooManyRequestsError) as refusal:
        limit.check("a", 0.1)
    assert refusal.value.wait_seconds == pytest.approx(0.4)
    assert allowed(limit, "a", 0.1 + refusal.value.wait_seconds)


def test_callers_dont_share_a_limit() -> None:
    limit = RateLimit("x", 1, 1)
    assert allowed(limit, "a", 0.0)
    assert allowed(limit, "b", 0.0)


def test_a_refused_request_doesnt_lengthen_the_wait() -> None:
    limit = RateLimit("x", 1, 1)
    limit.check("a", 0.0)
    assert not any(allowed(limit, "a", 0.5) for _ in range(100))
    assert allowed(limit, "a", 1.0)


def test_zero_means_no_limit() -> None:
    assert all(allowed(RateLimit("x", 0, 0), "a", 0.0) for _ in range(1000))


def test_memory_stays_bounded_under_a_flood_of_addresses() -> None:
    limit = RateLimit("x", 1, 1, max_callers=100)
    for number in range(10_000):
        limit.check(str(number), number / 1000)
    assert len(limit) <= 100


@given(st.lists(st.floats(0, 60, allow_nan=False), min_size=1, max_size=200))
def test_no_window_ever_sees_more_than_burst_plus_rate(gaps: list[float]) -> None:
    limit, now, accepted = RateLimit("x", 5, 10), 0.0, []
    for gap in sorted(gaps):
        now = gap
        if allowed(limit, "a", now):
            accepted.append(now)
    for start in accepted:
        inside = [at for at in accepted if start <= at <= start + 2]
        assert len(inside) <= 10 + 2 * 5 + 1
