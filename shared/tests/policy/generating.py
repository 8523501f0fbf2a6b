"""Random people and records of a world so small that they often meet."""

import random
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

from clinic_shared import contracts
from clinic_shared.policy import Place, Record, Relation
from clinic_shared.principal import Principal

from .matrix import MATRIX

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
PERMISSIONS = sorted(MATRIX)


def _ids(kind: int, count: int) -> list[UUID]:
    return [UUID(int=kind << 32 | n) for n in range(1, count + 1)]


PATIENTS, STAFF, CENTRES, DEPARTMENTS = _ids(1, 4), _ids(2, 4), _ids(3, 3), _ids(4, 5)
_STAFF_ROLES = (
    ("doctor",),
    ("doctor", "management"),
    ("registrar",),
    ("registrar", "biller"),
    ("management",),
    ("system-administrator",),
    ("biller",),
    ("privacy-officer",),
    ("records-officer",),
    ("doctor", "registrar"),
)
_MOMENTS = (
    *(NOW + timedelta(seconds=s) for s in (-1, 0, 1)),
    *(NOW + timedelta(days=d) for d in (-91, -30, 30, 90)),
)


@cache
def scopes_of(roles: tuple[str, ...]) -> frozenset[str]:
    by_role = contracts.scopes_by_role()
    return frozenset(scope for role in roles for scope in by_role[role])


def some(chance: random.Random, among: list[UUID]) -> frozenset[UUID]:
    return frozenset(chance.sample(among, chance.choice((0, 0, 1, 1, 2))))


def a_principal(chance: random.Random) -> Principal:
    kind = chance.choices(("staff", "patient", "client", "lab"), (12, 3, 1, 1))[0]
    if kind == "patient":
        patient_id = chance.choice(PATIENTS)
        return Principal(
            subject=chance.choice(STAFF),
            kind="patient",
            roles=frozenset({"patient"}),
            scopes=_narrowed(chance, ("patient",)),
            patient_id=patient_id,
        )
    places: dict[str, Any] = {
        "subject": chance.choice(STAFF),
        "network": chance.random() < 0.1,
        "centre_ids": some(chance, CENTRES),
        "department_ids": some(chance, DEPARTMENTS),
    }
    if kind == "lab":
        return Principal(
            kind="client", roles=frozenset({"lab"}), scopes=_narrowed(chance, ("lab",)), **places
        )
    if kind == "client":
        scopes = frozenset(chance.sample(PERMISSIONS, 20))
        return Principal(kind="client", scopes=scopes, **places)
    roles = chance.choice(_STAFF_ROLES)
    return Principal(kind="staff", roles=frozenset(roles), scopes=_narrowed(chance, roles), **places)


def _narrowed(chance: random.Random, roles: tuple[str, ...]) -> frozenset[str]:
    """A token may say less than its roles, never more."""
    scopes = scopes_of(roles)
    return scopes if chance.random() < 0.9 else scopes - {chance.choice(PERMISSIONS)}


def a_record(chance: random.Random) -> Record:
    return Record(
        patient_id=chance.choice((*PATIENTS, None)),
        owner_ids=[chance.choice((*STAFF, None)) for _ in range(chance.choice((0, 1, 2)))],
        places=[a_place(chance) for _ in range(chance.choice((0, 1, 1, 2)))],
        relations=[a_relation(chance) for _ in range(chance.choice((0, 0, 1, 2)))],
        follows_care=chance.random() < 0.5,
        aggregate=chance.random() < 0.1,
    )


def a_place(chance: random.Random) -> Place:
    return Place(centre_id=chance.choice((*CENTRES, None)), department_id=chance.choice((*DEPARTMENTS, None)))


def a_relation(chance: random.Random) -> Relation:
    return Relation(
        kind=chance.choice(("appointment", "referral", "break-glass")),
        source_id=UUID(int=chance.getrandbits(64)),
        practitioner_id=chance.choice((*STAFF, None)),
        centre_id=chance.choice((*CENTRES, None)),
        department_id=chance.choice((*DEPARTMENTS, None)),
        begins_at=chance.choice(_MOMENTS),
        ends_at=chance.choice((*_MOMENTS, None)),
    )


def a_permission(chance: random.Random, principal: Principal) -> str:
    """Mostly one that the caller holds: what they don't is refused at once."""
    held = sorted(principal.scopes & MATRIX.keys())
    return chance.choice(held) if held and chance.random() < 0.9 else chance.choice(PERMISSIONS)
