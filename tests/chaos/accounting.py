"""The checker: what clients were told against what took effect, in the manner of Jepsen. Pure.

A `History` (`history.py`) holds what callers asked for and what they heard; a `Snapshot` (read by `books.py`)
what stands in the databases. `judge` compares the two; a sound verdict has no findings.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby, pairwise
from operator import attrgetter
from typing import Any
from uuid import UUID

from .history import Answer, History


class Violation(StrEnum):
    LOST = "lost"
    DUPLICATE = "duplicate"
    PHANTOM = "phantom"
    DISORDER = "out of order"
    GAP = "gap"
    UNBALANCED = "unbalanced"
    LEFT_OVER = "left over"
    DIFFERENT = "different"
    UNOWNED = "nobody answers for it"
    TURNED_AWAY = "turned away"


@dataclass(frozen=True)
class Finding:
    violation: Violation
    where: str
    what: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(self.what[:5]) + (", ..." if len(self.what) > 5 else "")
        return f"{self.violation} ({len(self.what)}) in {self.where}: {shown}"


@dataclass(frozen=True)
class Verdict:
    findings: tuple[Finding, ...]
    lines: tuple["Line", ...] = ()
    remarks: tuple[str, ...] = ()
    """What contradicts nothing, and is to be known all the same."""

    @property
    def sound(self) -> bool:
        return not self.findings

    def count(self, violation: Violation) -> int:
        return sum(len(finding.what) for finding in self.of(violation))

    def of(self, violation: Violation) -> list[Finding]:
        return [finding for finding in self.findings if finding.violation is violation]

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings)) or "nothing lost, doubled, invented, out of order or open"


@dataclass(frozen=True)
class Published:
    """A row of a producer's event log."""

    event_id: UUID
    type: str
    subject: UUID
    version: int
    recorded_at: float = 0.0
    """By the database's clock, as all instants here."""

    def __str__(self) -> str:
        return f"{self.type} {self.subject} v{self.version}"


@dataclass(frozen=True)
class AuditTrail:
    """How one producer's audit records stand in the repository."""

    numbered: int
    stored: int
    distinct: int


@dataclass(frozen=True)
class Receipt:
    """What a movement of money owes the tax authority: how far it is, and how often it was registered."""

    movement: str
    status: str | None
    registered: int


@dataclass(frozen=True)
class Told:
    """A message to somebody: whether a messenger is known to have taken it, and how often it came there."""

    message_id: str
    is_sent: bool
    unknown_outcomes: int
    """How many calls never got an answer, so that it was sent once more."""
    received: int


@dataclass(frozen=True)
class Obligation:
    """Something that a person or a registrar still has to do."""

    what: str
    owner: str | None
    timers: int
    """How many will ask the next one in case nobody does it."""


@dataclass
class Snapshot:
    """What stands in the databases, on the broker and in the ledger at one moment."""

    effects: dict[str, dict[str, Counter[str]]] = field(default_factory=dict)
    """By kind of operation and place: how often each operation has taken effect there."""
    sequences: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    """By place and subject: the numbers of what was told about it, in the order in which it took effect."""
    subscriptions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Event type -> the installed services that keep it."""
    published: dict[str, list[Published]] = field(default_factory=dict)
    applied: dict[str, dict[UUID, float]] = field(default_factory=dict)
    """By consumer: when each event took effect."""
    kept: dict[str, dict[UUID, str]] = field(default_factory=dict)
    """By consumer: events that wait in `held`, with their state."""
    waiting: dict[str, int] = field(default_factory=dict)
    """Whatever is still under way, by name: outboxes, intake, calls to providers, queues."""
    audit: dict[str, AuditTrail] = field(default_factory=dict)
    ledger: Mapping[str, Any] | None = None
    receipts: list[Receipt] = field(default_factory=list)
    unasked_receipts: tuple[str, ...] = ()
    """Registered, though no movement of money owes them."""
    obligations: list[Obligation] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    unasked_messages: tuple[str, ...] = ()
    """Received by messengers, though nobody here sent them."""


def judge(snapshot: Snapshot, history: History) -> Verdict:
    """Return everything that contradicts: acknowledged = in effect, exactly once, in order, accounted for."""
    findings = [
        *_operations(snapshot, history),
        *_deliveries(snapshot, history),
        *_logs(snapshot),
        *_order(snapshot, history),
        *_sequences(snapshot),
        *_left_over(snapshot),
        *_audit(snapshot),
        *_ledger(snapshot.ledger),
        *_receipts(snapshot),
        *_obligations(snapshot),
        *_messages(snapshot),
    ]
    return Verdict(tuple(findings), tuple(_lines(snapshot, history)), tuple(_remarks(snapshot)))


@dataclass(frozen=True, kw_only=True)
class Line:
    """One kind of operation, as clients know it, and in how many the effects contradict them."""

    kind: str
    injected: int
    acknowledged: int
    refused: int
    unknown: int
    lost: int
    doubled: int
    phantom: int


def _lines(snapshot: Snapshot, history: History) -> Iterator[Line]:
    for kind in sorted(history.kinds() | snapshot.effects.keys()):
        known = history.operations(kind)
        answers = Counter(known.values())
        found: Counter[Violation] = Counter()
        for finding in _of_kind(kind, snapshot, known):
            found[finding.violation] += len(finding.what)
        yield Line(
            kind=kind,
            injected=len(known),
            acknowledged=answers[Answer.ACKED],
            refused=answers[Answer.FAILED],
            unknown=answers[Answer.UNKNOWN],
            lost=found[Violation.LOST],
            doubled=found[Violation.DUPLICATE],
            phantom=found[Violation.PHANTOM],
        )


def _found(violation: Violation, where: str, what: Iterable[object]) -> Iterator[Finding]:
    keys = tuple(sorted(map(str, what)))
    if keys:
        yield Finding(violation, where, keys)


def _operations(snapshot: Snapshot, history: History) -> Iterator[Finding]:
    for kind in snapshot.effects:
        yield from _of_kind(kind, snapshot, history.operations(kind))
    yield from _found(Violation.LOST, "the checker: nobody counts", history.kinds() - snapshot.effects.keys())


def _of_kind(kind: str, snapshot: Snapshot, known: Mapping[str, Answer]) -> Iterator[Finding]:
    acked = {key for key, answer in known.items() if answer is Answer.ACKED}
    possible = {key for key, answer in known.items() if answer is not Answer.FAILED}
    for place, effects in snapshot.effects.get(kind, {}).items():
        where = f"{kind}: {place}"
        yield from _found(Violation.LOST, where, acked - effects.keys())
        yield from _found(Violation.DUPLICATE, where, (k for k, count in effects.items() if count > 1))
        yield from _found(Violation.PHANTOM, where, effects.keys() - possible)


def _deliveries(snapshot: Snapshot, history: History) -> Iterator[Finding]:
    """Every event reaches everyone who keeps it; nobody applies what nobody published."""
    everything = {event.event_id for log in snapshot.published.values() for event in log}
    for consumer, applied in snapshot.applied.items():
        kept = snapshot.kept.get(consumer, {})
        due = {
            event.event_id
            for log in snapshot.published.values()
            for event in log
            if consumer in snapshot.subscriptions.get(event.type, ())
        }
        yield from _found(Violation.LOST, f"events for {consumer}", due - applied.keys() - kept.keys())
        invented = (applied.keys() | kept.keys()) - everything - history.foreign
        yield from _found(Violation.PHANTOM, f"events at {consumer}", invented)


def _logs(snapshot: Snapshot) -> Iterator[Finding]:
    """A producer tells each version of an aggregate once, without a gap."""
    for producer, log in snapshot.published.items():
        versions = Counter((event.subject, event.version) for event in log)
        twice = (f"{subject} v{version}" for (subject, version), count in versions.items() if count > 1)
        yield from _found(Violation.DUPLICATE, f"log of {producer}", twice)
        by_subject: dict[UUID, set[int]] = {}
        for subject, version in versions:
            by_subject.setdefault(subject, set()).add(version)
        broken = (subject for subject, seen in by_subject.items() if len(seen) != max(seen) - min(seen) + 1)
        yield from _found(Violation.GAP, f"log of {producer}", broken)


def _order(snapshot: Snapshot, history: History) -> Iterator[Finding]:
    """Versions of an aggregate take effect in their order, but for what had to wait for a person or was resent."""
    for consumer, applied in snapshot.applied.items():
        delayed = snapshot.kept.get(consumer, {})
        for producer, log in snapshot.published.items():
            resent = [
                one.at for one in history.resent if (one.consumer, one.producer) == (consumer, producer)
            ]
            seen = [
                event
                for event in log
                if event.event_id in applied
                and event.event_id not in delayed
                and not _came_again(event, applied[event.event_id], resent)
            ]
            seen.sort(key=lambda event: (event.subject, applied[event.event_id]))
            wrong = (
                f"{earlier} {applied[later.event_id] - applied[earlier.event_id]:.3f} s before {later}"
                for _, events in groupby(seen, key=attrgetter("subject"))
                for earlier, later in pairwise(events)
                if later.version < earlier.version
            )
            yield from _found(Violation.DISORDER, f"{producer} at {consumer}", wrong)


def _came_again(event: Published, applied_at: float, resent: Sequence[float]) -> bool:
    return any(event.recorded_at < at < applied_at for at in resent)


def _sequences(snapshot: Snapshot) -> Iterator[Finding]:
    for place, subjects in snapshot.sequences.items():
        wrong = (subject for subject, numbers in subjects.items() if numbers != sorted(numbers))
        yield from _found(Violation.DISORDER, place, wrong)


def _left_over(snapshot: Snapshot) -> Iterator[Finding]:
    open_ends = (f"{name}: {count}" for name, count in snapshot.waiting.items() if count)
    yield from _found(Violation.LEFT_OVER, "the system at rest", open_ends)
    for consumer, kept in snapshot.kept.items():
        waiting = (f"{event_id} {state}" for event_id, state in kept.items() if state != "discarded")
        yield from _found(Violation.LEFT_OVER, f"dead letters of {consumer}", waiting)


def _audit(snapshot: Snapshot) -> Iterator[Finding]:
    for producer, trail in snapshot.audit.items():
        where = f"audit records of {producer}"
        if trail.distinct < trail.numbered:
            yield Finding(Violation.LOST, where, (f"{trail.distinct} of {trail.numbered}",))
        if trail.distinct > trail.numbered:
            yield Finding(Violation.PHANTOM, where, (f"{trail.distinct} of {trail.numbered}",))
        if trail.stored > trail.distinct:
            yield Finding(Violation.DUPLICATE, where, (f"{trail.stored} of {trail.distinct}",))


def _ledger(ledger: Mapping[str, Any] | None) -> Iterator[Finding]:
    """The parts are added here again: `balanced` is what the services say of themselves."""
    if ledger is None:
        return
    parts = ("applied", "parked", "rejected", "superseded", "duplicate", "discarded", "in_flight")
    for line in ledger["interfaces"]:
        where = f"ledger of {line['interface']}"
        total = sum(line[part] for part in parts)
        if line["answered"] != total or not line["balanced"]:
            yield Finding(Violation.UNBALANCED, where, (f"{line['answered']} answered, {total} in parts",))
        if line["in_flight"]:
            yield Finding(Violation.LEFT_OVER, where, (f"{line['in_flight']} in flight",))
    unreachable = (f"{part['service']}: {part['reason']}" for part in ledger.get("unreachable", ()))
    yield from _found(Violation.LEFT_OVER, "ledger: unreachable", unreachable)
    for service, document in ledger["services"].items():
        if document.get("money_sum_minor"):
            yield Finding(Violation.UNBALANCED, f"money of {service}", (str(document["money_sum_minor"]),))


def _receipts(snapshot: Snapshot) -> Iterator[Finding]:
    """One per movement of money, here and at the registrar."""
    owed = snapshot.receipts
    where = "receipts"
    missing = (one.movement for one in owed if one.status is None)
    unregistered = (one.movement for one in owed if one.status == "done" and not one.registered)
    yield from _found(Violation.LOST, where, (*missing, *unregistered))
    yield from _found(Violation.DUPLICATE, where, (one.movement for one in owed if one.registered > 1))
    yield from _found(Violation.PHANTOM, where, snapshot.unasked_receipts)
    open_ = (f"{one.movement} {one.status}" for one in owed if one.status not in {None, "done"})
    yield from _found(Violation.LEFT_OVER, where, open_)


def _obligations(snapshot: Snapshot) -> Iterator[Finding]:
    """Somebody is asked, and one timer will ask the next."""
    neglected = (one.what for one in snapshot.obligations if not one.owner or one.timers != 1)
    yield from _found(Violation.UNOWNED, "obligations", neglected)


def _messages(snapshot: Snapshot) -> Iterator[Finding]:
    """Nobody hears more often of something than there were calls without an answer, and the first time."""
    where = "messengers"
    yield from _found(
        Violation.LOST, where, (one.message_id for one in snapshot.told if one.is_sent and not one.received)
    )
    twice = (one.message_id for one in snapshot.told if one.received > 1 + one.unknown_outcomes)
    yield from _found(Violation.DUPLICATE, where, twice)
    yield from _found(Violation.PHANTOM, where, snapshot.unasked_messages)


def _remarks(snapshot: Snapshot) -> Iterator[str]:
    repeated = sum(one.received > 1 for one in snapshot.told)
    unanswered = sum(one.unknown_outcomes > 0 for one in snapshot.told)
    if snapshot.told:
        yield (
            f"messengers: {len(snapshot.told)} messages, {unanswered} with calls that nobody answered, "
            f"{repeated} of which came twice: no messenger has idempotency keys"
        )
