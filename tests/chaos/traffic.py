"""Light traffic from a few threads while something is being killed: bookings, laboratory messages, payments.

A run of the matrix has `errands` beside it: deposits, refunds, orders to the laboratory, messages that are mended.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from .mending import Operator
from .ordering import Doctor
from .paying import Till
from .people import Desk, Lab, Patient, corpus
from .waiting import Watch

FLOW_SECONDS = 120
PAUSE_SECONDS = 60
BOOKINGS, LAB_MESSAGES, PAYMENTS = KINDS = ("bookings", "lab messages", "payments")
CORRECTIONS, OTHERS_MESSAGES = "corrections", "others' messages"
ALL_KINDS = (*KINDS, CORRECTIONS, OTHERS_MESSAGES)
DEPOSITS, REFUNDS, ORDERS, MENDINGS = "deposits", "refunds", "orders", "mendings"
WITH_VENDORS = (PAYMENTS, DEPOSITS, REFUNDS, ORDERS)
"""What vendors know of, whose stand-ins forget it when they are started anew."""
Errand = Callable[[random.Random], object]
_PAUSE_SECONDS = (0.1, 0.4)
_LONGER_PAUSES = {ORDERS: (0.5, 2.0), REFUNDS: (1.0, 3.0), MENDINGS: (2.0, 6.0)}
_SENT_AGAIN = 0.2
_LONGEST_FLOW = 60
"""Operations of each kind in one flow, whatever happens: the machine may be small."""


class Flow:
    """Traffic that is under way. `done` counts what was acknowledged, by kind.

    Who was turned away, or got no answer for too long, is an error, and goes on only if the flow is `hardy`.
    """

    def __init__(self, kinds: Collection[str], *, at_most: int, hardy: bool) -> None:
        self.at_most = at_most
        self.hardy = hardy
        self.stop = threading.Event()
        self.is_open = threading.Event()
        """Cleared while what was begun is more than the machine can work off."""
        self.is_open.set()
        self.done: Counter[str] = Counter(dict.fromkeys(kinds, 0))
        self.errors: list[tuple[str, Exception]] = []
        self._lock = threading.Lock()
        self._turns = {kind: threading.Lock() for kind in kinds}

    def count(self, kind: str) -> None:
        with self._lock:
            self.done[kind] += 1

    def turn(self, kind: str) -> threading.Lock:
        """Return what is held during one operation of a kind."""
        return self._turns[kind]

    @contextmanager
    def pausing(self, kinds: Collection[str]) -> Iterator[None]:
        """Let nobody begin another operation of these kinds, once those under way have ended. Raises TimeoutError."""
        with ExitStack() as paused:
            for kind in self._turns.keys() & set(kinds):
                if not self._turns[kind].acquire(timeout=PAUSE_SECONDS):
                    raise TimeoutError(f"{kind} don't come to an end")
                paused.callback(self._turns[kind].release)
            yield

    def wait_for_more(self, operations: int = 1, *, kinds: Collection[str] = KINDS) -> None:
        """Wait until so many more operations of each of these kinds have been acknowledged."""
        with self._lock:
            wanted = {kind: min(self.done[kind] + operations, self.at_most) for kind in kinds}
        watch = Watch(FLOW_SECONDS)
        while any(self.done[kind] < count for kind, count in wanted.items()):
            assert self.hardy or not self.errors, self.errors
            assert not watch.is_over, f"traffic stands still: {self.done}, wanted {wanted}"
            watch.note([f"{kind}: {count}" for kind, count in self.done.items()])
            time.sleep(0.02)


class Traffic:
    """Who does what. Seeded, so that a run can be repeated as far as threads allow."""

    def __init__(self, desk: Desk, lab: Lab, till: Till, patients: list[Patient], rng: random.Random) -> None:
        self._desk = desk
        self._lab = lab
        self._till = till
        self._patients = patients
        self._rng = rng
        self._corpus = list(corpus())

    @property
    def patients(self) -> list[Patient]:
        return self._patients

    @contextmanager
    def flowing(
        self,
        wanted: Collection[str] = KINDS,
        *,
        at_most: int = _LONGEST_FLOW,
        hardy: bool = False,
        errands: Mapping[str, Errand] | None = None,
    ) -> Iterator[Flow]:
        """Let traffic flow until the block ends; then what was begun is finished, and errors are raised.

        `at_most` limits the operations of each kind. When it is `hardy`, errors are left to the caller.
        """
        kinds: dict[str, Errand] = {
            BOOKINGS: lambda rng: self._desk.book(rng.choice(self._patients)),
            LAB_MESSAGES: lambda rng: self._lab.send(
                rng.choice(self._patients), again=rng.random() < _SENT_AGAIN
            ),
            CORRECTIONS: lambda rng: self._lab.amend(rng.choice(self._patients)),
            PAYMENTS: lambda rng: self._till.pay(self._till.visit(), deliveries=rng.randint(1, 3)),
        }
        if self._corpus:
            kinds[OTHERS_MESSAGES] = lambda rng: self._lab.deliver(rng.choice(self._corpus))
        kinds = {kind: act for kind, act in kinds.items() if kind in wanted} | dict(errands or {})
        flow = Flow(kinds, at_most=at_most, hardy=hardy)
        threads = []
        for kind, act in kinds.items():
            rng = random.Random(self._rng.random())
            threads.append(threading.Thread(target=_keep_doing, args=(flow, kind, act, rng), name=kind))
        for thread in threads:
            thread.start()
        try:
            yield flow
        finally:
            flow.stop.set()
            flow.is_open.set()
            for thread in threads:
                thread.join()
        print(f"acknowledged: {dict(flow.done)}")
        assert hardy or not flow.errors, flow.errors


def errands(till: Till, doctor: Doctor, operator: Operator, patients: list[Patient]) -> dict[str, Errand]:
    return {
        DEPOSITS: lambda rng: till.pay(till.deposit(), deliveries=rng.randint(1, 3)),
        REFUNDS: lambda _: till.give_back(),
        ORDERS: lambda rng: doctor.order(rng.choice(patients)),
        MENDINGS: lambda rng: operator.mend(rng.choice(patients)),
    }


def _keep_doing(flow: Flow, kind: str, act: Errand, rng: random.Random) -> None:
    pause = _LONGER_PAUSES.get(kind, _PAUSE_SECONDS)
    while not flow.stop.is_set() and flow.done[kind] < flow.at_most:
        flow.is_open.wait()
        if flow.stop.is_set():
            return
        try:
            with flow.turn(kind):
                act(rng)
            flow.count(kind)
        except Exception as error:  # noqa: BLE001  # told by whoever let the traffic flow
            flow.errors.append((kind, error))
            if not flow.hardy:
                return
        flow.stop.wait(rng.uniform(*pause))
