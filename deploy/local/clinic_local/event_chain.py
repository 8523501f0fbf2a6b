"""What came of what: the events around an id, of all services, as trees of causes, with who has applied them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from clinic_shared import contracts

from clinic_local.api_client import Caller
from clinic_local.operations import LARGEST_PAGE, ask_all

IDS_AT_ONCE = 40
_TRACE_ID_LENGTH = 32


@dataclass
class Happening:
    """An event, what became of it at its consumers, and what it led to."""

    event: Mapping[str, Any]
    effects: list[dict[str, Any]] = field(default_factory=list)
    """One per consumer that has it: service, disposition, at."""
    waiting: list[str] = field(default_factory=list)
    """Consumers that it hasn't reached, or that don't show what they did with it."""
    parent: "Happening | None" = None
    consequences: list["Happening"] = field(default_factory=list)

    @property
    def recorded_at(self) -> datetime:
        return datetime.fromisoformat(self.event["recorded_at"])

    @property
    def delay(self) -> timedelta | None:
        """From the event that it follows; None for a beginning."""
        return None if self.parent is None else self.recorded_at - self.parent.recorded_at

    def after(self, instant: str) -> timedelta:
        return datetime.fromisoformat(instant) - self.recorded_at

    def document(self) -> dict[str, Any]:
        """Return it with all that it led to, for programs."""
        effects = [{**effect, "delay_ms": milliseconds(self.after(effect["at"]))} for effect in self.effects]
        return {
            **self.event,
            "delay_ms": None if self.delay is None else milliseconds(self.delay),
            "effects": effects,
            "not_yet_applied_by": self.waiting,
            "consequences": [one.document() for one in self.consequences],
        }


@dataclass(frozen=True)
class Chain:
    beginnings: list[Happening]
    unreachable: list[dict[str, Any]]


def milliseconds(delay: timedelta) -> float:
    return round(delay / timedelta(milliseconds=1), 1)


def given(text: str) -> dict[str, list[str] | str]:
    """Return the filters that an id may mean, of whatever kind. Raises ValueError for what is no id."""
    parts = text.strip().lower().split("-")
    trace_id = parts[1] if len(parts) == 4 else text.strip().lower()  # noqa: PLR2004  # a traceparent
    one = str(UUID(trace_id))
    filters: dict[str, list[str] | str] = {
        name: [one] for name in ("subject", "event", "correlation", "patient", "received")
    }
    is_trace = len(trace_id) == _TRACE_ID_LENGTH
    return {**filters, "trace": trace_id if is_trace else UUID(one).hex}


def chain_of(caller: Caller, text: str) -> Chain:
    """Ask all services for the events around an id. Raises ValueError for what is no id."""
    asking = _Asking(caller)
    asking.add(**given(text))
    asking.add_all("correlation", {event["correlation_id"] for event in asking.events.values()})
    # What began here went on in journeys of its own: a message that was queued is sent later.
    asking.add_all("subject", {event["subject"] for event in asking.events.values() if _is_first(event)})
    asking.add_all("event", asking.missing_causes())
    happenings = {event_id: Happening(event) for event_id, event in asking.events.items()}
    _tell_effects(happenings, asking.effects(), asking.services)
    return Chain(_as_trees(happenings), list(asking.unreachable.values()))


def _is_first(event: Mapping[str, Any]) -> bool:
    return bool(event["aggregate_version"] == 1)


class _Asking:
    """Collects events from all services, each once, and remembers who didn't answer."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self.events: dict[str, dict[str, Any]] = {}
        self.services: set[str] = set()
        self.unreachable: dict[str, dict[str, Any]] = {}

    def add(self, **filters: Any) -> None:
        for event in self._ask("events", limit=LARGEST_PAGE, **filters):
            self.events.setdefault(event["event_id"], event)

    def add_all(self, name: str, ids: Iterable[str]) -> None:
        for some in _chunks(sorted(ids)):
            self.add(**{name: some})

    def missing_causes(self) -> set[str]:
        causes = {event["causation_id"] for event in self.events.values() if event["causation_id"]}
        return causes - self.events.keys()

    def effects(self) -> list[dict[str, Any]]:
        return [
            effect for some in _chunks(sorted(self.events)) for effect in self._ask("deliveries", event=some)
        ]

    def _ask(self, page: str, **parameters: Any) -> list[dict[str, Any]]:
        merged = ask_all(self._caller, page, **parameters)
        self.services |= merged["services"].keys()
        self.unreachable |= {part["service"]: part for part in merged["unreachable"]}
        found: list[dict[str, Any]] = merged.get("items", [])
        return found


def _chunks(ids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), IDS_AT_ONCE):
        yield list(ids[start : start + IDS_AT_ONCE])


def _tell_effects(
    happenings: Mapping[str, Happening], effects: Iterable[dict[str, Any]], services: set[str]
) -> None:
    for effect in sorted(effects, key=lambda effect: effect["at"]):
        happenings[effect["event_id"]].effects.append(effect)
    known = contracts.load().events
    for happening in happenings.values():
        event_type = known.get(happening.event["type"])
        expected = services & set(event_type.consumers if event_type else ())
        happening.waiting = sorted(expected - {effect["service"] for effect in happening.effects})


def _as_trees(happenings: Mapping[str, Happening]) -> list[Happening]:
    """Put each event below what caused it or, if nothing known did, below the state it changed."""
    beginnings: list[Happening] = []
    latest: dict[str, Happening] = {}
    for happening in sorted(happenings.values(), key=lambda one: (one.recorded_at, one.event["event_id"])):
        event = happening.event
        happening.parent = happenings.get(event["causation_id"] or "") or latest.get(event["subject"])
        siblings = beginnings if happening.parent is None else happening.parent.consequences
        siblings.append(happening)
        latest[event["subject"]] = happening
    return beginnings
