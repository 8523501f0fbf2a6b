"""What another policy would have decided about what has happened.

Each decision has recorded its permission, who asked with which roles, and every reach in which they stood to
the record; so another policy is tried on the same facts. Pure.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from clinic_shared.audit import Outcome
from clinic_shared.policy import Policy, Reach
from clinic_shared.principal import Principal

EXAMPLES = 3
_NOBODY = UUID(int=0)
_REACHES = frozenset(Reach)


@dataclass(frozen=True, kw_only=True)
class Decided:
    """A decision as its audit record has it. Without `holds` it was refused before any record was looked at."""

    record_id: str
    permission: str
    allowed: bool
    who: str
    kind: str
    roles: frozenset[str]
    patient: str | None
    holds: frozenset[Reach] | None


@dataclass
class Change:
    """What would come out differently for people with these roles. `examples` are ids of audit records."""

    permission: str
    roles: tuple[str, ...]
    would_be_allowed: bool
    records: int = 0
    people: set[str] = field(default_factory=set)
    patients: set[str] = field(default_factory=set)
    examples: list[str] = field(default_factory=list)

    def count(self, decided: Decided) -> None:
        self.records += 1
        self.people.add(decided.who)
        if decided.patient is not None:
            self.patients.add(decided.patient)
        if len(self.examples) < EXAMPLES:
            self.examples.append(decided.record_id)


@dataclass
class Trial:
    judged: int = 0
    without_decision: int = 0
    """Records of acts that no decision about a person's data stands behind."""
    changes: list[Change] = field(default_factory=list)


def try_policy(proposed: Policy, records: Iterable[bytes]) -> Trial:
    """Decide everything once more; the changes come in the order of how often they would happen."""
    trial = Trial()
    changes: dict[tuple[str, tuple[str, ...], bool], Change] = {}
    for record in records:
        decided = decided_in(json.loads(record))
        if decided is None or not proposed.governs(decided.permission):
            trial.without_decision += 1
            continue
        trial.judged += 1
        allowed = would_allow(proposed, decided)
        if allowed != decided.allowed:
            key = (decided.permission, tuple(sorted(decided.roles)), allowed)
            changes.setdefault(key, Change(*key)).count(decided)
    trial.changes = sorted(changes.values(), key=lambda change: -change.records)
    return trial


def decided_in(record: Mapping[str, Any]) -> Decided | None:
    """Return the decision that a record tells of, or None."""
    details, agent = record.get("details") or {}, record["agent"]
    permission = details.get("permission")
    if permission is None or agent.get("kind") not in {"staff", "patient", "client"}:
        return None
    holds = details.get("holds")
    return Decided(
        record_id=record["id"],
        permission=permission,
        allowed=record["outcome"] == Outcome.SUCCESS,
        who=agent["who"],
        kind=agent["kind"],
        roles=frozenset(agent.get("roles") or ()),
        patient=record.get("patient"),
        holds=None if holds is None else frozenset(Reach(one) for one in holds.split() if one in _REACHES),
    )


def would_allow(proposed: Policy, decided: Decided) -> bool:
    """Decide by the recorded facts; who was refused at the door is let in by any reach at all."""
    if decided.holds is None and decided.allowed:
        return True
    who = Principal(subject=_NOBODY, kind=decided.kind, roles=decided.roles)  # type: ignore[arg-type]  # checked
    reach = frozenset(proposed.reach_of(who, decided.permission))
    return bool(reach) if decided.holds is None else bool(reach & decided.holds)
