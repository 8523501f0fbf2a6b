"""What changed, as `/v1/stream` tells it: ids, type and version, and who may hear of it."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any
from uuid import UUID

from clinic_shared.envelope import Envelope
from clinic_shared.principal import Principal

OVERLAP_SECONDS = 5.0
"""Replicas hear the same events in other orders: who comes back to another one gets these seconds twice."""
_CENTRES = ("centre_id", "from_centre_id", "to_centre_id")
_DEPARTMENTS = ("department_id", "from_department_id", "to_department_id")
NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Change:
    """`scope` reads the resource; places and patient say whose it is. Only the first four are told."""

    event_id: UUID
    type: str
    subject: UUID
    version: int
    scope: str
    centre_ids: frozenset[UUID]
    department_ids: frozenset[UUID]
    patient_id: UUID | None
    heard_at: float

    def concerns(self, principal: Principal) -> bool:
        """Tell whether this caller may know: by the scope, and by whose data or which place it is."""
        if not principal.may(self.scope):
            return False
        if principal.patient_id is not None:
            return self.patient_id in principal.own_records
        if principal.network or not (self.centre_ids or self.department_ids or self.patient_id):
            return True
        return not (
            self.centre_ids.isdisjoint(principal.centre_ids)
            and self.department_ids.isdisjoint(principal.department_ids)
        )


class Rules:
    """`contracts/taxonomy/stream.yaml`: which scope an event type asks for."""

    def __init__(self, taxonomy: Mapping[str, Any]) -> None:
        self._rules = [(rule["type"], rule["scope"]) for rule in taxonomy["changes"]]
        self._known: dict[str, str] = {}

    def scope_of(self, event_type: str) -> str:
        """Return the scope; a type that no rule names is for nobody."""
        if event_type not in self._known:
            fitting = (scope for pattern, scope in self._rules if fnmatchcase(event_type, pattern))
            self._known[event_type] = next(fitting, NOBODY)
        return self._known[event_type]

    def change_of(self, envelope: Envelope, data: Mapping[str, Any], *, heard_at: float) -> Change | None:
        """Return what may be told of an event, or None when nobody is to hear of it."""
        scope = self.scope_of(envelope.type)
        if scope == NOBODY:
            return None
        return Change(
            event_id=envelope.id,
            type=envelope.type,
            subject=envelope.subject,
            version=envelope.aggregate_version,
            scope=scope,
            centre_ids=_ids(data, _CENTRES, "centre_ids"),
            department_ids=_ids(data, _DEPARTMENTS, "department_ids"),
            patient_id=_id(data.get("patient_id")),
            heard_at=heard_at,
        )


def _ids(data: Mapping[str, Any], names: tuple[str, ...], several: str) -> frozenset[UUID]:
    listed = data.get(several)
    values = [data.get(name) for name in names] + (listed if isinstance(listed, list) else [])
    return frozenset(filter(None, map(_id, values)))


def _id(value: object) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


class Ring:
    """The last changes, in memory, for those who come back. Bounded."""

    def __init__(self, longest: int) -> None:
        self._changes: deque[Change] = deque(maxlen=longest)
        self._first = 0
        self._positions: dict[UUID, int] = {}

    def add(self, change: Change) -> None:
        if len(self._changes) == self._changes.maxlen:
            self._positions.pop(self._changes[0].event_id, None)
            self._first += 1
        self._positions[change.event_id] = self._first + len(self._changes)
        self._changes.append(change)

    def clear(self) -> None:
        """Forget everything: after a gap, nobody must believe to have heard all."""
        self._first += len(self._changes)
        self._changes.clear()
        self._positions.clear()

    @property
    def newest(self) -> UUID | None:
        return self._changes[-1].event_id if self._changes else None

    def since(self, event_id: UUID) -> list[Change] | None:
        """Return what came after an event, with a little from before it; None when it isn't here any more."""
        position = self._positions.get(event_id)
        if position is None:
            return None
        index = position - self._first
        overlap_from = self._changes[index].heard_at - OVERLAP_SECONDS
        while index > 0 and self._changes[index - 1].heard_at >= overlap_from:
            index -= 1
        return [one for one in islice(self._changes, index, None) if one.event_id != event_id]

    def __iter__(self) -> Iterator[Change]:
        return iter(self._changes)
