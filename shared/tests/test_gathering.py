"""Little is taken up at once, much is gathered, and nobody waits for longer than one round's time."""

import pytest
from clinic_shared.gathering import Gathering


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr("clinic_shared.gathering.time", clock)
    return clock


def test_who_comes_now_and_then_never_waits(clock: _Clock) -> None:
    gathering = Gathering(0.1)
    for _ in range(20):
        assert gathering.wait_seconds == 0
        gathering.begin()
        clock.now += 0.15


def test_after_some_in_a_row_rounds_are_a_time_apart(clock: _Clock) -> None:
    gathering = Gathering(0.1, at_once=3)
    for _ in range(3):
        assert gathering.wait_seconds == 0
        gathering.begin()
    for _ in range(20):
        assert gathering.wait_seconds == pytest.approx(0.1)
        clock.now += gathering.wait_seconds
        gathering.begin()


def test_however_many_rounds_did_not_wait_the_next_does_for_one_time_only(clock: _Clock) -> None:
    gathering = Gathering(0.1)
    for _ in range(1000):
        gathering.begin()
    assert gathering.wait_seconds == pytest.approx(0.1)


def test_after_a_rest_rounds_begin_at_once_again(clock: _Clock) -> None:
    gathering = Gathering(0.1)
    for _ in range(10):
        gathering.begin()
    clock.now += 0.4
    assert gathering.wait_seconds == 0
