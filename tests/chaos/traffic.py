"""Light traffic from a few threads while something is being killed: bookings, laboratory messages, payments."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from .people import Desk, Lab, Patient, Till

FLOW_SECONDS = 60
BOOKINGS, LAB_MESSAGES, PAYMENTS = KINDS = ("bookings", "lab messages", "payments")
_PAUSE_SECONDS = (0.1, 0.4)
_LONGEST_FLOW = 60
"""Operations of each kind in one flow, whatever happens: the machine may be small."""


class Flow:
    """Traffic that is under way. `done` counts what was acknowledged, by kind."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.done: Counter[str] = Counter()
        self.errors: list[Exception] = []
        self._lock = threading.Lock()

    def count(self, kind: str) -> None:
        with self._lock:
            self.done[kind] += 1

    def wait_for_more(self, operations: int = 1, *, kinds: Collection[str] = KINDS) -> None:
        """Wait until so many more operations of each of these kinds have been acknowledged."""
        with self._lock:
            wanted = {kind: min(self.done[kind] + operations, _LONGEST_FLOW) for kind in kinds}
        deadline = time.monotonic() + FLOW_SECONDS
        while any(self.done[kind] < count for kind, count in wanted.items()):
            assert not self.errors, self.errors
            assert time.monotonic() < deadline, f"traffic stands still: {self.done}, wanted {wanted}"
            time.sleep(0.02)


class Traffic:
    """Who does what. Seeded, so that a run can be repeated as far as threads allow."""

    def __init__(self, desk: Desk, lab: Lab, till: Till, patients: list[Patient], rng: random.Random) -> None:
        self._desk = desk
        self._lab = lab
        self._till = till
        self._patients = patients
        self._rng = rng

    @contextmanager
    def flowing(self) -> Iterator[Flow]:
        """Let traffic flow until the block ends; then what was begun is finished, and errors are raised."""
        flow = Flow()
        kinds: dict[str, Callable[[random.Random], object]] = {
            BOOKINGS: lambda rng: self._desk.book(rng.choice(self._patients)),
            LAB_MESSAGES: lambda rng: self._lab.send(rng.choice(self._patients)),
            PAYMENTS: lambda _: self._till.pay(self._till.visit()),
        }
        threads = []
        for kind, act in kinds.items():
            flow.done[kind] = 0
            rng = random.Random(self._rng.random())
            threads.append(threading.Thread(target=_keep_doing, args=(flow, kind, act, rng), name=kind))
        for thread in threads:
            thread.start()
        try:
            yield flow
        finally:
            flow.stop.set()
            for thread in threads:
                thread.join()
        print(f"acknowledged: {dict(flow.done)}")
        assert not flow.errors, flow.errors


def _keep_doing(flow: Flow, kind: str, act: Callable[[random.Random], object], rng: random.Random) -> None:
    try:
        while not flow.stop.is_set() and flow.done[kind] < _LONGEST_FLOW:
            act(rng)
            flow.count(kind)
            flow.stop.wait(rng.uniform(*_PAUSE_SECONDS))
    except Exception as error:  # noqa: BLE001  # raised by the test's own thread
        flow.errors.append(error)
