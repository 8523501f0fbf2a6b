"""Durable timers: rows that fire once, keyed by subject and subject version.

A timer that was due while the service was down still fires, until `useful_until`; after that it
expires and is counted. One timer's failure never stops the others.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, DateTime, Integer, Table, Text, UniqueConstraint, Uuid, func

from clinic_shared.events import runtime_metadata, type_of_json

if TYPE_CHECKING:
    from clinic_shared.database import Transaction

timer_table = Table(
    "timer",
    runtime_metadata,
    Column("timer_id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Uuid, nullable=False),
    Column("subject_version", BigInteger, nullable=False),
    Column("occurrence", Text, nullable=False, server_default=""),
    Column("due_at", DateTime(timezone=True), nullable=False),
    Column("useful_until", DateTime(timezone=True)),
    Column("payload", type_of_json, nullable=False),
    Column("state", Text, nullable=False, server_default="pending"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", DateTime(timezone=True), nullable=False),
    Column("finished_at", DateTime(timezone=True)),
    Column("last_error", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("correlation_id", Uuid),
    Column("causation_id", Uuid),
    Column("traceparent", Text),
    UniqueConstraint("kind", "subject", "subject_version", "occurrence", name="timer_once"),
)


@dataclass(frozen=True, kw_only=True)
class Timer:
    """Something to do at `due_at`. Scheduling the same key again changes nothing.

    `occurrence` tells apart several timers of one kind and subject version, such as `24h` and `2h`.
    """

    kind: str
    subject: UUID
    subject_version: int
    due_at: datetime
    occurrence: str = ""
    useful_until: datetime | None = None
    payload: dict[str, Any] = field(default_factory=dict)


TimerHandler = Callable[["Transaction", Timer], Awaitable[None]]


class Timers:
    """The timer handlers of one service, by kind."""

    def __init__(self) -> None:
        self.handlers: dict[str, TimerHandler] = {}

    def on(self, kind: str) -> Callable[[TimerHandler], TimerHandler]:
        def register(handler: TimerHandler) -> TimerHandler:
            if kind in self.handlers:
                raise ValueError(f"two handlers for timer {kind}")
            self.handlers[kind] = handler
            return handler

        return register
