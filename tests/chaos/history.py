"""What callers asked for and what they heard, and what was done to events on their way."""

import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class Answer(StrEnum):
    """What a caller knows about an attempt."""

    ACKED = "acked"
    FAILED = "failed"
    """Refused in a way that promises no effect."""
    UNKNOWN = "unknown"
    """No answer: it may have taken effect or may still do."""


@dataclass(frozen=True)
class Attempt:
    kind: str
    key: str
    answer: Answer
    at: float


@dataclass(frozen=True)
class Resent:
    """A consumer's queue was gone for a while, and a producer was asked to send all of its log again.

    What was published before may then take effect after newer versions: that is why events carry whole states.
    """

    consumer: str
    producer: str
    at: float


class History:
    """What all callers did, from as many threads as there are. Attempts with one key are one operation."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._attempts: list[Attempt] = []
        self.foreign: set[UUID] = set()
        """Ids of events that a test put on the broker itself, so that no producer knows of them."""
        self.planted: set[UUID] = set()
        """Those among them that can't take effect as they came: whoever has to apply them may park them."""
        self.resent: list[Resent] = []

    def record(self, kind: str, key: str, answer: Answer) -> None:
        with self._lock:
            self._attempts.append(Attempt(kind, key, answer, time.time()))

    def copied(self, event_id: str) -> None:
        """Note the id of a corrected copy: an event where it was made, and nowhere else."""
        self.foreign.add(UUID(event_id))
        self.planted.add(UUID(event_id))

    def __len__(self) -> int:
        return len(self._copy())

    def kinds(self) -> set[str]:
        return {attempt.kind for attempt in self._copy()}

    def operations(self, kind: str) -> dict[str, Answer]:
        """Return what is known of each operation: acknowledged once is acknowledged for good."""
        rank = {Answer.FAILED: 0, Answer.UNKNOWN: 1, Answer.ACKED: 2}
        known: dict[str, Answer] = {}
        for attempt in self._copy():
            if attempt.kind == kind:
                best = known.get(attempt.key, Answer.FAILED)
                known[attempt.key] = max(best, attempt.answer, key=rank.__getitem__)
        return known

    def acked(self, kind: str) -> set[str]:
        return {key for key, answer in self.operations(kind).items() if answer is Answer.ACKED}

    def _copy(self) -> list[Attempt]:
        with self._lock:
            return list(self._attempts)
