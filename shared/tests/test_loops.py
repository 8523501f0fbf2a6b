"""Loops come back soon after what ends them once in a while, and later after what ends them at once."""

import asyncio

import pytest
from clinic_shared import loops
from clinic_shared.health import Health


async def pauses_after(monkeypatch: pytest.MonkeyPatch, *, lasting_seconds: float) -> list[float]:
    """The longest pause `keep_running` may make after each of eight failures."""
    stop, longest, now = asyncio.Event(), list[float](), [0.0]

    async def work() -> None:
        now[0] += lasting_seconds
        if len(longest) == 7:
            stop.set()
        raise OSError

    def note(_: float, upper: float) -> float:
        longest.append(upper)
        return 0.0

    monkeypatch.setattr("clinic_shared.loops.time.monotonic", lambda: now[0])
    monkeypatch.setattr("clinic_shared.loops.random.uniform", note)
    await loops.keep_running("relay", stop, work, Health())
    return longest


async def test_what_fails_at_once_is_tried_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = await pauses_after(monkeypatch, lasting_seconds=0.1)
    assert longest == sorted(longest)
    assert longest[-1] == loops.LONGEST_BACK_OFF_SECONDS


async def test_what_ran_for_a_while_is_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(await pauses_after(monkeypatch, lasting_seconds=60)) == {0.4}
