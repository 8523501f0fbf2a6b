"""Who has to answer for a result, and who is asked next when nobody does: pure.

A ladder has no end: its last rung, whoever is on call, is asked again and again until somebody answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from uuid import UUID


class ObligationKind(StrEnum):
    CRITICAL = "critical-result"
    REVIEW = "review"
    """Nobody here has ordered the result, so nobody waits for it: somebody has to read it all the same."""
    RETRACTION = "retraction"
    """Somebody has read what is withdrawn now."""


class ObligationStatus(StrEnum):
    OPEN = "open"
    ESCALATED = "escalated"
    ACKNOWLEDGED = "acknowledged"


class OwnerRole(StrEnum):
    ORDERING = "ordering-practitioner"
    READER = "reader"
    HEAD = "head-of-department"
    ON_CALL = "on-call"


@dataclass(frozen=True, kw_only=True)
class Duty:
    """Who answers for a department when whoever is asked first doesn't."""

    department_id: UUID
    version: int = 0
    head_id: UUID | None = None
    on_call_id: UUID | None = None


@dataclass(frozen=True)
class Rung:
    """Who is asked, and how long they have. Without a person, whoever is on call where the result belongs."""

    role: OwnerRole
    owner_id: UUID | None
    patience: timedelta


_SHORTER = 2
"""Those who are asked later have half the time: it has been lost already."""
_SHORTEST = timedelta(minutes=1)


def ladder(
    first: tuple[OwnerRole, UUID | None], duty: Duty | None, *, seconds: int, absent: Sequence[UUID] = ()
) -> list[Rung]:
    """Return whom to ask, in turn. Nobody is asked twice running, and nobody who is `absent`."""
    patience = timedelta(seconds=seconds)
    later = max(patience / _SHORTER, _SHORTEST)
    rungs: list[Rung] = []
    named = [first, (OwnerRole.HEAD, duty.head_id if duty else None)]
    for role, person in named:
        if person is not None and person not in absent and person not in {r.owner_id for r in rungs}:
            rungs.append(Rung(role, person, later if rungs else patience))
    on_call = duty.on_call_id if duty and duty.on_call_id not in absent else None
    return [*rungs, Rung(OwnerRole.ON_CALL, on_call, later if rungs else patience)]


def next_rung(rungs: Sequence[Rung], role: OwnerRole, owner_id: UUID | None) -> Rung:
    """Return whom to ask after `role`; the last rung again when it was the last.

    The ladder may have changed meanwhile: what counts is how far up it was, not the place it had.
    """
    order = list(OwnerRole)
    higher = [r for r in rungs if order.index(r.role) > order.index(role) and r.owner_id != owner_id]
    return higher[0] if higher else rungs[-1]
