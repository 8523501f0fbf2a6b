"""Events of the past, asked for and answered: what a consumer asks, and what becomes of it.

The consumer publishes ReplayRequested; each owner reads its own log (`replay_worker.py`) and ends with
ReplayCompleted. Whatever an owner commits after it was asked comes to the consumer live, so an owner
sends what is there when it reads, and both together are everything: no order of commits is assumed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Integer,
    Numeric,
    Row,
    Table,
    Text,
    Uuid,
    exists,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.consumer import platform_handlers
from clinic_shared.contracts import PLATFORM
from clinic_shared.database import Transaction
from clinic_shared.envelope import Envelope
from clinic_shared.errors import DomainError, NotFoundError
from clinic_shared.events import Event, runtime_metadata, wire_instant
from clinic_shared.ids import uuid7, uuid7_floor

REQUESTED = f"{PLATFORM}.replay-requested.v1"
CANCELLED = f"{PLATFORM}.replay-cancelled.v1"
COMPLETED = f"{PLATFORM}.replay-completed.v1"

FIRST_ID = UUID(int=0)

job_table = Table(
    "replay_job",
    runtime_metadata,
    Column("replay_id", Uuid, primary_key=True),
    Column("consumer", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("event_types", ARRAY(Text), nullable=False),
    Column("first_id", Uuid, nullable=False),
    Column("end_id", Uuid),
    Column("subject", Uuid),
    Column("keep_origin", Boolean, nullable=False),
    Column("events_per_second", Integer),
    Column("state", Text, nullable=False),
    Column("high_water_id", Uuid),
    Column("total", BigInteger),
    Column("cursor_id", Uuid),
    Column("event_count", BigInteger, nullable=False),
    Column("checksum", Numeric, nullable=False),
    Column("requested_at", DateTime(timezone=True), nullable=False),
    Column("begun_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    Column("correlation_id", Uuid, nullable=False),
)

request_table = Table(
    "replay_request",
    runtime_metadata,
    Column("replay_id", Uuid, primary_key=True),
    Column("purpose", Text, nullable=False),
    Column("event_types", ARRAY(Text), nullable=False),
    Column("from_at", DateTime(timezone=True)),
    Column("until_at", DateTime(timezone=True)),
    Column("subject", Uuid),
    Column("keep_origin", Boolean, nullable=False),
    Column("state", Text, nullable=False),
    Column("requested_at", DateTime(timezone=True), nullable=False),
    Column("requested_by", Uuid),
    Column("finished_at", DateTime(timezone=True)),
)

part_table = Table(
    "replay_part",
    runtime_metadata,
    Column("replay_id", Uuid, primary_key=True),
    Column("producer", Text, primary_key=True),
    Column("event_count", BigInteger),
    Column("checksum", Text),
    Column("high_water_id", Uuid),
    Column("completed_at", DateTime(timezone=True)),
)


class ReplayPurpose(StrEnum):
    REBUILD = "rebuild"
    RESEND = "resend"
    COUNT = "count"


class ReplayOverError(DomainError):
    """It was finished or cancelled before."""

    slug = "replay-over"
    title = "The replay is over"
    fix = "Read the list of replays for how it ended; what was delivered stays delivered."


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which events, for what. Instants are those of recording, half-open; None is unbounded."""

    purpose: ReplayPurpose
    event_types: Sequence[str]
    from_at: datetime | None = None
    until_at: datetime | None = None
    subject: UUID | None = None
    keep_origin: bool = False
    events_per_second: int | None = None

    @property
    def producers(self) -> list[str]:
        return list(dict.fromkeys(event_type.partition(".")[0] for event_type in self.event_types))


class ReplayRequested(BaseModel):
    replay_id: UUID
    consumer: str
    producers: list[str]
    event_types: list[str]
    purpose: ReplayPurpose
    from_at: AwareDatetime | None
    until_at: AwareDatetime | None
    subject_id: UUID | None
    keep_origin: bool
    events_per_second: int | None
    requested_at: AwareDatetime


class ReplayCancelled(BaseModel):
    replay_id: UUID
    consumer: str


class ReplayCompleted(BaseModel):
    replay_id: UUID
    consumer: str
    producer: str
    event_count: int
    checksum: str
    high_water_id: UUID | None
    completed_at: AwareDatetime


def add_up(checksum: int, event_ids: Iterable[UUID]) -> int:
    """Add events to a checksum that doesn't depend on their order."""
    return (checksum + sum(event_id.int & 0xFFFF_FFFF_FFFF_FFFF for event_id in event_ids)) % 2**64


def hexadecimal(checksum: int) -> str:
    return f"{checksum:016x}"


# -- the consumer's side


async def request(tx: Transaction, wanted: Wanted, *, replay_id: UUID | None = None) -> UUID:
    """Ask the owners for events; they begin when this has committed. Returns the replay's id."""
    replay_id = replay_id or uuid7()
    by = tx.context.principal.subject
    await tx.execute(
        insert(request_table).values(
            replay_id=replay_id,
            purpose=wanted.purpose.value,
            event_types=list(wanted.event_types),
            from_at=wanted.from_at,
            until_at=wanted.until_at,
            subject=wanted.subject,
            keep_origin=wanted.keep_origin,
            state="running",
            requested_at=tx.now,
            requested_by=by,
        )
    )
    if wanted.producers:
        parts_to_come = [{"replay_id": replay_id, "producer": name} for name in wanted.producers]
        await tx.execute(insert(part_table), parts_to_come)
        tx.emit(_requested(replay_id, tx, wanted))
    else:  # nobody whom this service listens to is installed
        await _finish_request(tx, replay_id, "complete")
    tx.audit(
        AuditEntry(
            action=Action.EXECUTE,
            resource_type="Replay",
            resource_id=str(replay_id),
            details={"purpose": wanted.purpose.value, "keep_origin": str(wanted.keep_origin).lower()},
        )
    )
    return replay_id


def _requested(replay_id: UUID, tx: Transaction, wanted: Wanted) -> Event:
    return Event(
        type=REQUESTED,
        subject=replay_id,
        aggregate_version=1,
        data={
            "replay_id": str(replay_id),
            "consumer": tx.service,
            "producers": wanted.producers,
            "event_types": list(wanted.event_types),
            "purpose": wanted.purpose.value,
            "from_at": wire_instant(wanted.from_at),
            "until_at": wire_instant(wanted.until_at),
            "subject_id": None if wanted.subject is None else str(wanted.subject),
            "keep_origin": wanted.keep_origin,
            "events_per_second": wanted.events_per_second,
            "requested_at": wire_instant(tx.now),
        },
    )


async def cancel(tx: Transaction, replay_id: UUID) -> None:
    """Stop a replay; what was sent by then stays sent. Raises NotFoundError, ReplayOverError."""
    statement = select(request_table.c.state).where(request_table.c.replay_id == replay_id)
    row = await tx.fetch_one(statement)
    if row is None:
        raise NotFoundError
    if not await cancel_if_running(tx, replay_id):
        raise ReplayOverError(detail=f"It is {row.state}.")
    tx.audit(AuditEntry(action=Action.EXECUTE, resource_type="Replay", resource_id=str(replay_id)))


async def cancel_if_running(tx: Transaction, replay_id: UUID) -> bool:
    """Tell the owners to stop. Returns False when the replay was over before."""
    if not await _finish_request(tx, replay_id, "cancelled"):
        return False
    data = {"replay_id": str(replay_id), "consumer": tx.service, "cancelled_at": wire_instant(tx.now)}
    tx.emit(Event(type=CANCELLED, subject=replay_id, aggregate_version=2, data=data))
    return True


async def parts(tx: Transaction, replay_ids: Sequence[UUID]) -> Sequence[Row[Any]]:
    """Return what each owner answered, the unanswered with nulls."""
    statement = select(part_table).where(part_table.c.replay_id.in_(replay_ids))
    return await tx.fetch_all(statement.order_by(part_table.c.producer))


async def _finish_request(tx: Transaction, replay_id: UUID, state: str) -> bool:
    row = await tx.fetch_one(
        update(request_table)
        .where(request_table.c.replay_id == replay_id, request_table.c.state == "running")
        .values(state=state, finished_at=tx.now)
        .returning(request_table.c.replay_id)
    )
    return row is not None


@platform_handlers.on(COMPLETED)
async def note_completion(tx: Transaction, _: Envelope, done: ReplayCompleted) -> None:
    """An owner has sent everything; with the last owner the request is complete."""
    if done.consumer != tx.service:
        return
    await tx.execute(
        update(part_table)
        .where(part_table.c.replay_id == done.replay_id, part_table.c.producer == done.producer)
        .values(
            event_count=done.event_count,
            checksum=done.checksum,
            high_water_id=done.high_water_id,
            completed_at=done.completed_at,
        )
    )
    unanswered = exists().where(part_table.c.replay_id == done.replay_id, part_table.c.completed_at.is_(None))
    if not (await tx.execute(select(unanswered))).scalar_one():
        await _finish_request(tx, done.replay_id, "complete")


# -- the owner's side


@platform_handlers.on(REQUESTED)
async def take_on(tx: Transaction, envelope: Envelope, asked: ReplayRequested) -> None:
    """Remember to answer, if it is this service's log that is asked for."""
    if tx.service not in asked.producers:
        return
    own = [name for name in asked.event_types if name.partition(".")[0] == tx.service]
    await tx.execute(
        insert(job_table)
        .values(
            replay_id=asked.replay_id,
            consumer=asked.consumer,
            purpose=asked.purpose.value,
            event_types=own,
            first_id=FIRST_ID if asked.from_at is None else uuid7_floor(asked.from_at),
            end_id=None if asked.until_at is None else uuid7_floor(asked.until_at),
            subject=asked.subject_id,
            keep_origin=asked.keep_origin,
            events_per_second=asked.events_per_second,
            state="running",
            event_count=0,
            checksum=0,
            requested_at=asked.requested_at,
            correlation_id=envelope.correlation_id,
        )
        .on_conflict_do_nothing()
    )


@platform_handlers.on(CANCELLED)
async def give_up(tx: Transaction, _: Envelope, cancelled: ReplayCancelled) -> None:
    """Stop reading. The request comes before it on the same queue, so the job is known."""
    await tx.execute(
        update(job_table)
        .where(
            job_table.c.replay_id == cancelled.replay_id,
            job_table.c.consumer == cancelled.consumer,
            job_table.c.state == "running",
        )
        .values(state="cancelled", finished_at=tx.now)
    )


def completed(job: Row[Any], *, producer: str, now: datetime) -> Event:
    return Event(
        type=COMPLETED,
        subject=job.replay_id,
        aggregate_version=3,
        data={
            "replay_id": str(job.replay_id),
            "consumer": job.consumer,
            "producer": producer,
            "event_count": job.event_count,
            "checksum": hexadecimal(int(job.checksum)),
            "high_water_id": None if job.high_water_id is None else str(job.high_water_id),
            "completed_at": wire_instant(now),
        },
    )


async def listed_requests(tx: Transaction, *, limit: int) -> Sequence[Row[Any]]:
    """Return what this service asked for, the newest first."""
    return await tx.fetch_all(
        select(request_table).order_by(request_table.c.requested_at.desc()).limit(limit)
    )


async def listed_jobs(tx: Transaction, *, limit: int) -> Sequence[Row[Any]]:
    """Return what this service was asked for, the newest first."""
    return await tx.fetch_all(select(job_table).order_by(job_table.c.requested_at.desc()).limit(limit))


async def forget_old(tx: Transaction, *, older_than: timedelta) -> None:
    """Forget replays that ended long ago; the audit log keeps who asked."""
    for table in (request_table, job_table):
        await tx.execute(
            table.delete().where(table.c.state != "running", table.c.finished_at < tx.now - older_than)
        )
    await tx.execute(
        part_table.delete().where(~exists().where(request_table.c.replay_id == part_table.c.replay_id))
    )
