"""A breach of personal data: which accesses it is about, what must be told by when, and how it is closed. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import ClassVar
from uuid import UUID

import yaml
from clinic_shared.errors import DomainError, NotFoundError
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

_FILE = Path(__file__).with_name("breach_clocks.yaml")


class BreachState(StrEnum):
    OPEN = "open"
    CLOSING = "closing"
    """One officer has said that nothing is left to do; another one has to agree."""
    CLOSED = "closed"


class BreachStateError(DomainError):
    """It is closed, or nobody has asked yet to close it."""

    slug: ClassVar[str] = "breach-state"
    title: ClassVar[str] = "The breach's state doesn't allow this"
    fix: ClassVar[str] = (
        "Read it again: one officer asks to close it, another one closes; what is closed stays so."
    )


class NoticesOpenError(DomainError):
    """A breach isn't over while somebody has still to be told."""

    slug: ClassVar[str] = "breach-notices-open"
    title: ClassVar[str] = "Some notices haven't been recorded"
    fix: ClassVar[str] = "Record each notice that `clocks` lists: given, or why it isn't due."


class SecondOfficerError(DomainError):
    """Whoever asked to close a breach can't be the one who agrees."""

    slug: ClassVar[str] = "breach-second-person"
    title: ClassVar[str] = "Another privacy officer has to close this"
    fix: ClassVar[str] = "Ask another privacy officer."


class ClockRule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    hours: int = Field(gt=0)
    basis: str


@cache
def profiles() -> Mapping[str, Mapping[str, ClockRule]]:
    """Return, by jurisdiction, what has to be told within how long."""
    content = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return TypeAdapter(dict[str, dict[str, ClockRule]]).validate_python(content)


@dataclass(frozen=True, kw_only=True)
class Scope:
    """The accesses that it is about: all that is given must match, from `since` until before `until`."""

    since: datetime
    until: datetime
    actor: UUID | None = None
    action: str | None = None
    service: str | None = None
    resource_type: str | None = None


@dataclass(frozen=True, kw_only=True)
class Clock:
    """A deadline. `note` says how it was met, or why it isn't due: a reference, never whom it is about."""

    name: str
    basis: str
    due_at: datetime
    met_at: datetime | None = None
    met_by: UUID | None = None
    note: str | None = None
    overdue_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Breach:
    breach_id: UUID
    version: int
    state: BreachState
    jurisdiction: str
    summary: str
    scope: Scope
    discovered_at: datetime
    recorded_at: datetime
    recorded_by: UUID
    owner_id: UUID
    clocks: Sequence[Clock] = field(default=())
    close_asked_by: UUID | None = None
    close_asked_at: datetime | None = None
    conclusion: str | None = None
    closed_by: UUID | None = None
    closed_at: datetime | None = None

    def with_met(self, name: str, *, by: UUID, at: datetime, note: str) -> "Breach":
        """Record a notice; a later one replaces what was said before. Raises NotFoundError, BreachStateError."""
        self._require(BreachState.OPEN)
        if name not in {clock.name for clock in self.clocks}:
            raise NotFoundError
        clocks = [
            replace(clock, met_at=at, met_by=by, note=note) if clock.name == name else clock
            for clock in self.clocks
        ]
        return replace(self, version=self.version + 1, clocks=clocks)

    def overdue(self, name: str, at: datetime) -> "Breach":
        clocks = [
            replace(clock, overdue_at=at) if clock.name == name and clock.met_at is None else clock
            for clock in self.clocks
        ]
        return replace(self, version=self.version + 1, clocks=clocks)

    def closing(self, *, by: UUID, at: datetime, conclusion: str) -> "Breach":
        """Raises BreachStateError, NoticesOpenError."""
        self._require(BreachState.OPEN)
        if any(clock.met_at is None for clock in self.clocks):
            raise NoticesOpenError
        return replace(
            self,
            version=self.version + 1,
            state=BreachState.CLOSING,
            close_asked_by=by,
            close_asked_at=at,
            conclusion=conclusion,
        )

    def reopened(self) -> "Breach":
        """Take back, or refuse, what one officer has concluded."""
        self._require(BreachState.CLOSING)
        return replace(
            self, version=self.version + 1, state=BreachState.OPEN, close_asked_by=None, close_asked_at=None
        )

    def closed(self, *, by: UUID, at: datetime) -> "Breach":
        """Raises BreachStateError, SecondOfficerError."""
        self._require(BreachState.CLOSING)
        if by == self.close_asked_by:
            raise SecondOfficerError
        return replace(self, version=self.version + 1, state=BreachState.CLOSED, closed_by=by, closed_at=at)

    def _require(self, state: BreachState) -> None:
        if self.state is not state:
            raise BreachStateError(f"It is {self.state}.", state=self.state.value)


def clocks_of(jurisdiction: str, discovered_at: datetime) -> list[Clock]:
    return [
        Clock(name=name, basis=rule.basis, due_at=discovered_at + timedelta(hours=rule.hours))
        for name, rule in profiles()[jurisdiction].items()
    ]
