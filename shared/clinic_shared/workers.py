"""Which workers of this service run, and how far behind each is: told in its database, for the API to read.

A worker that died says nothing any more; its row goes an hour later.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Column, DateTime, Integer, Row, Table, Text, Uuid, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from clinic_shared.database import Transaction
from clinic_shared.events import runtime_metadata

ALIVE_SECONDS = 60
FORGOTTEN_AFTER = timedelta(hours=1)
HEARTBEAT = ""
"""The row that a worker without a queue has too."""

worker_state = Table(
    "worker_state",
    runtime_metadata,
    Column("worker", Uuid, primary_key=True),
    Column("queue", Text, primary_key=True),
    Column("oldest_at", DateTime(timezone=True)),
    Column("messages", Integer),
    Column("measured_at", DateTime(timezone=True), nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What waits in one queue, as a worker sees it; None where it can't tell."""

    oldest_at: datetime | None
    messages: int | None


@dataclass(frozen=True, kw_only=True)
class Workers:
    """What the workers said last. `silent_seconds` is None when none ever spoke."""

    alive: int
    silent_seconds: float | None
    queues: Mapping[str, Waiting]
    """Of the workers alive; of the last one when none is."""


async def tell(tx: Transaction, worker: UUID, queues: Mapping[str, Waiting]) -> None:
    """Say that this worker runs and what waits for it."""
    waiting = {HEARTBEAT: Waiting(oldest_at=None, messages=None), **queues}
    statement = insert(worker_state).values(measured_at=func.now())
    changing = {name: statement.excluded[name] for name in ("oldest_at", "messages", "measured_at")}
    rows = [
        {"worker": worker, "queue": queue, "oldest_at": one.oldest_at, "messages": one.messages}
        for queue, one in waiting.items()
    ]
    await tx.execute(statement.on_conflict_do_update(index_elements=["worker", "queue"], set_=changing), rows)
    await tx.execute(delete(worker_state).where(worker_state.c.measured_at < func.now() - FORGOTTEN_AFTER))


async def heard(tx: Transaction) -> Workers:
    """Return what the workers said last."""
    age = func.extract("epoch", func.now() - worker_state.c.measured_at).label("age")
    rows = await tx.fetch_all(
        select(
            worker_state.c.worker,
            worker_state.c.queue,
            worker_state.c.oldest_at,
            worker_state.c.messages,
            age,
        )
    )
    if not rows:
        return Workers(alive=0, silent_seconds=None, queues={})
    ages = {row.worker: float(row.age) for row in rows}
    alive = {worker for worker, seconds in ages.items() if seconds < ALIVE_SECONDS}
    speaking = alive or {min(ages, key=lambda worker: ages[worker])}
    spoken = [row for row in rows if row.worker in speaking and row.queue != HEARTBEAT]
    return Workers(alive=len(alive), silent_seconds=min(ages.values()), queues=_by_queue(spoken))


def _by_queue(rows: list[Row[Any]]) -> dict[str, Waiting]:
    queues: dict[str, Waiting] = {}
    for row in rows:
        before = queues.get(row.queue, Waiting(oldest_at=None, messages=None))
        queues[row.queue] = Waiting(
            oldest_at=min(filter(None, (before.oldest_at, row.oldest_at)), default=None),
            messages=max((m for m in (before.messages, row.messages) if m is not None), default=None),
        )
    return queues
