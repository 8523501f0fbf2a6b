"""Who may do what with which record: the policy of `contracts/policy/access.yaml`, and the one that decides.

Deciding is pure: principal, permission and record in, a decision with its explanation out. Whatever the
policy doesn't grant is denied. `policy_filters.py` says the same to the database, for lists.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self
from uuid import UUID

import yaml
from pydantic import BaseModel, ConfigDict, Field

from clinic_shared import contracts
from clinic_shared.principal import Principal

POLICY_FILE = Path("policy/access.yaml")
APPLICATION = "application"
"""Stands for the role that an OAuth client without roles has."""


class Reach(StrEnum):
    OWN = "own"
    RELATIONSHIP = "relationship"
    DEPARTMENT = "department"
    CENTRE = "centre"
    NETWORK = "network"
    AGGREGATE = "aggregate"


_IN_ORDER = tuple(Reach)
"""The nearest reach explains a decision: who treats a patient isn't told that they work in the network."""

BREAK_GLASS = "break-glass"


@dataclass(frozen=True, kw_only=True, slots=True)
class Relation:
    """Why somebody, or anybody of a department, has a patient in their care: half-open in time."""

    kind: str
    source_id: UUID
    practitioner_id: UUID | None = None
    centre_id: UUID | None = None
    department_id: UUID | None = None
    begins_at: datetime
    ends_at: datetime | None = None

    def is_over(self, now: datetime) -> bool:
        return self.ends_at is not None and now >= self.ends_at

    def holds_for(self, principal: Principal, now: datetime) -> bool:
        if now < self.begins_at or self.is_over(now):
            return False
        return self.practitioner_id == principal.subject or self.department_id in principal.department_ids


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    centre_id: UUID | None = None
    department_id: UUID | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What a decision is about, as far as it matters: whose it is, who made it, where it stands.

    `relations` are those of the patient with whomever; which of them count is decided here. A record that
    `follows_care` stands also where its patient is or will be treated, so that the desk there finds it.
    """

    patient_id: UUID | None = None
    owner_ids: Sequence[UUID | None] = ()
    places: Sequence[Place] = ()
    relations: Sequence[Relation] = ()
    follows_care: bool = False
    aggregate: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """`reason` is a reach, or why not: `no-permission`, `out-of-reach`.

    `holds` are all reaches in which the caller stands to the record, granted or not: with them another
    policy can be tried on what happened under this one.
    """

    allowed: bool
    reason: str
    permission: str
    policy_version: int
    holds: tuple[Reach, ...] = ()
    relation: Relation | None = None

    def explained(self) -> dict[str, str]:
        """Return what an audit record says of it: codes and ids."""
        told = {
            "permission": self.permission,
            "decision": self.reason,
            "holds": " ".join(self.holds),
            "policy": str(self.policy_version),
        }
        if self.relation is not None:
            told["relationship"] = self.relation.kind
            told["relationship_source"] = str(self.relation.source_id)
        return told


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    action: Literal["read", "write"]
    reach: dict[str, tuple[Reach, ...]]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(ge=1)
    applications: tuple[Reach, ...]
    data: dict[str, dict[str, _Rule]]


@dataclass(frozen=True)
class Policy:
    """One version of the policy. `reaches` holds, for each permission and role, how far it goes."""

    version: int
    reaches: Mapping[str, Mapping[str, frozenset[Reach]]]
    data_of: Mapping[str, str]
    """The kind of data that a permission is about."""
    holders: Mapping[str, frozenset[str]]
    """The roles that hold a permission at all (`taxonomy/roles.yaml`)."""
    _combined: dict[tuple[str, frozenset[str]], tuple[Reach, ...]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def of(cls, document: Mapping[str, Any], scopes_by_role: Mapping[str, Iterable[str]]) -> Self:
        """Raises pydantic's ValidationError for what is no policy."""
        read = _Document.model_validate(document)
        rules = {name: rule for rules in read.data.values() for name, rule in rules.items()}
        reaches = {
            name: {role: frozenset(reach) for role, reach in rule.reach.items()}
            | {APPLICATION: frozenset(read.applications)}
            for name, rule in rules.items()
        }
        holders: dict[str, set[str]] = {}
        for role, scopes in scopes_by_role.items():
            for scope in scopes:
                holders.setdefault(scope, set()).add(role)
        return cls(
            version=read.version,
            reaches=reaches,
            data_of={name: data for data, rules in read.data.items() for name in rules},
            holders={name: frozenset(roles) for name, roles in holders.items()},
        )

    def governs(self, permission: str) -> bool:
        """Tell whether the permission is about records of people; others are a matter of roles alone."""
        return permission in self.reaches

    def reach_of(self, principal: Principal, permission: str) -> tuple[Reach, ...]:
        """Return how far the permission goes for somebody with these roles, the nearest first."""
        roles = principal.roles or (frozenset({APPLICATION}) if principal.kind == "client" else frozenset())
        found = self._combined.get((permission, roles))
        if found is None:
            granted = self.reaches.get(permission, {})
            held = frozenset().union(*(granted.get(role, frozenset()) for role in roles))
            found = tuple(reach for reach in _IN_ORDER if reach in held)
            self._combined[permission, roles] = found
        return found

    def decide(self, principal: Principal, permission: str, record: Record, *, now: datetime) -> Decision:
        """Decide whether somebody may use a permission on a record."""
        if principal.kind == "system":
            return self._decided(permission, allowed=True, reason="system")
        if not principal.may(permission):
            return self._decided(permission, allowed=False, reason="no-permission")
        if not self.governs(permission):
            return self._decided(permission, allowed=True, reason="role")
        relation = _relation_of(principal, record.relations, now)
        holds = tuple(
            reach
            for reach in _IN_ORDER
            if (
                relation is not None
                if reach is Reach.RELATIONSHIP
                else _reaches(reach, principal, record, now)
            )
        )
        for reach in self.reach_of(principal, permission):
            if reach in holds:
                explanation = relation if reach is Reach.RELATIONSHIP else None
                return self._decided(
                    permission, allowed=True, reason=reach.value, holds=holds, relation=explanation
                )
        return self._decided(permission, allowed=False, reason="out-of-reach", holds=holds)

    def _decided(
        self,
        permission: str,
        *,
        allowed: bool,
        reason: str,
        holds: tuple[Reach, ...] = (),
        relation: Relation | None = None,
    ) -> Decision:
        return Decision(
            allowed=allowed,
            reason=reason,
            permission=permission,
            policy_version=self.version,
            holds=holds,
            relation=relation,
        )


def _reaches(reach: Reach, principal: Principal, record: Record, now: datetime) -> bool:
    if reach is Reach.OWN:
        return _is_own(principal, record)
    if reach is Reach.AGGREGATE:
        return record.aggregate and _works_at_any(principal, record.places)
    if reach is Reach.DEPARTMENT:
        return _works_at_any(principal, record.places) or (
            record.follows_care and _treats_there(principal, record.relations, now)
        )
    if reach is Reach.CENTRE:
        return principal.network or any(place.centre_id in principal.centre_ids for place in record.places)
    return reach is Reach.NETWORK


def _is_own(principal: Principal, record: Record) -> bool:
    if principal.kind == "patient":
        return record.patient_id in principal.own_records
    return principal.subject in record.owner_ids


def _works_at_any(principal: Principal, places: Sequence[Place]) -> bool:
    return principal.network or any(
        principal.works_in(centre_id=place.centre_id, department_id=place.department_id) for place in places
    )


def _treats_there(principal: Principal, relations: Sequence[Relation], now: datetime) -> bool:
    return any(
        not relation.is_over(now)
        and principal.works_in(centre_id=relation.centre_id, department_id=relation.department_id)
        for relation in relations
    )


def _relation_of(principal: Principal, relations: Sequence[Relation], now: datetime) -> Relation | None:
    """Return what explains best: one's own before the department's, a broken glass only when nothing else."""
    holding = [relation for relation in relations if relation.holds_for(principal, now)]
    if not holding:
        return None
    return min(
        holding,
        key=lambda r: (r.kind == BREAK_GLASS, r.practitioner_id != principal.subject, r.kind, r.source_id),
    )


def load(folder: Path, file: Path | None = None) -> Policy:
    """Read the policy of a contracts folder, or another `file` in its place."""
    document = yaml.safe_load((file or folder / POLICY_FILE).read_text(encoding="utf-8"))
    return Policy.of(document, contracts.load(folder).scopes_by_role())


@lru_cache(maxsize=1)
def current() -> Policy:
    """Return the policy of this release."""
    return load(contracts.CONTRACTS_DIR)
