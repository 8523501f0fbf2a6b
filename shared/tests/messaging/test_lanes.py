"""Batches side by side: all that waits goes together, no key is in two of them, and one that takes long delays few."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from clinic_shared.lanes import Lanes, Settled
from clinic_shared.testing import eventually

Job = tuple[str, int]


@asynccontextmanager
async def lanes_of(
    handle: Callable[[Sequence[Job]], Awaitable[None]], *, lanes: int = 8, most: int = 16
) -> AsyncIterator[Lanes[Job]]:
    made = Lanes(handle, lanes=lanes, most=most)
    try:
        yield made
    finally:
        await made.cancel()


async def test_what_comes_while_a_batch_is_in_hand_goes_together() -> None:
    batches: list[int] = []

    async def handle(batch: Sequence[Job]) -> None:
        batches.append(len(batch))
        await asyncio.sleep(0)

    async with lanes_of(handle) as lanes:
        for number in range(160):
            lanes.put(str(number), (str(number), number))
        await lanes.join()
    assert sum(batches) == 160
    assert len(batches) == 10


async def test_one_that_takes_long_holds_up_its_own_key_only() -> None:
    done: list[Job] = []
    gate = asyncio.Event()

    async def handle(batch: Sequence[Job]) -> None:
        if ("slow", 1) in batch:
            await gate.wait()
        done.extend(batch)

    async with lanes_of(handle) as lanes:
        lanes.put("slow", ("slow", 1))
        await asyncio.sleep(0)  # it is in hand, alone
        for number in range(30):
            lanes.put(f"other {number}", (f"other {number}", number))
        lanes.put("slow", ("slow", 2))
        await eventually(lambda: _has(done, 30))
        assert not any(key == "slow" for key, _ in done)
        gate.set()
        await lanes.join()
    assert done[30:] == [("slow", 1), ("slow", 2)]


async def _has(done: list[Job], count: int) -> bool:
    return len(done) >= count


@pytest.mark.parametrize("most", [1, 3, 16])
async def test_each_key_keeps_its_order_and_is_in_one_batch_at_a_time(most: int) -> None:
    chance = random.Random(most)  # a test's dice
    in_hand: set[str] = set()
    done: dict[str, list[int]] = {}

    async def handle(batch: Sequence[Job]) -> None:
        keys = {key for key, _ in batch}
        assert not keys & in_hand
        in_hand.update(keys)
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        for key, number in batch:
            done.setdefault(key, []).append(number)
        in_hand.difference_update(keys)

    async with lanes_of(handle, lanes=4, most=most) as lanes:
        for number in range(300):
            key = str(chance.randrange(7))
            lanes.put(key, (key, number))
            if chance.random() < 0.3:
                await asyncio.sleep(0)
        await lanes.join()
    assert sum(map(len, done.values())) == 300
    assert all(numbers == sorted(numbers) for numbers in done.values())


async def test_nothing_is_left_behind_when_it_comes_one_by_one() -> None:
    done: list[Job] = []

    async def handle(batch: Sequence[Job]) -> None:
        await asyncio.sleep(0)
        done.extend(batch)

    async with lanes_of(handle) as lanes:
        for number in range(20):
            lanes.put("key", ("key", number))
            await lanes.join()
            assert done[-1] == ("key", number)


def test_what_is_settled_without_a_gap_takes_one_acknowledgement() -> None:
    settled = Settled()
    assert settled.add([2, 3]) == (None, [2, 3])
    assert settled.add([1]) == (1, [])  # not 3, which the broker knows already
    assert settled.add([4, 5, 7]) == (5, [7])
    assert settled.add([8]) == (None, [8])
    assert settled.add([6, 9]) == (9, [])


def test_whatever_the_order_each_delivery_is_acknowledged_once_and_none_before_it_is_settled() -> None:
    chance = random.Random(4)  # a test's dice
    settled, done, acknowledged = Settled(), set[int](), set[int]()
    waiting = list(range(1, 301))
    while waiting:
        batch = [waiting.pop(chance.randrange(min(9, len(waiting)))) for _ in range(min(len(waiting), 5))]
        done.update(batch)
        upto, singly = settled.add(batch)
        told = [*singly, *([] if upto is None else [upto])]
        assert not acknowledged & set(told)
        covered = set() if upto is None else set(range(1, upto + 1))
        assert covered <= done
        acknowledged |= covered | set(singly)
        assert set(batch) <= acknowledged
    assert acknowledged == set(range(1, 301))
