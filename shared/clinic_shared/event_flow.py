"""`/v1/ops/event-flow`: what this service publishes, what it subscribes to, and how far behind it is.

The gateway joins the answers of all services to one map; only then is it known what got lost between two of them.
"""

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import httpx
from pydantic import BaseModel, Field
from sqlalchemy import Row, func, select

from clinic_shared import contracts, tally, workers
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.events import outbox
from clinic_shared.held import held_table
from clinic_shared.ids import uuid7_time
from clinic_shared.management import Management
from clinic_shared.routing import ClinicRouter, CurrentContext, CurrentRuntime
from clinic_shared.tally import Count, Direction, Window, producer_of
from clinic_shared.topology import event_queue, installed, queues_of
from clinic_shared.workers import Waiting, Workers

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

READ = "ops.read"
BROKER_SECONDS = 1.5
NOT_COUNTED = Count(direction=Direction.APPLIED, type="", total=0, recent=0, accounted=0, per_second=0.0)

router = ClinicRouter(prefix="/v1/ops", tags=["operations"])

PerSecond = Annotated[float, Field(description="Events a second in the last five minutes")]
Recent = Annotated[int, Field(description="Of the last day, up to now")]
Accounted = Annotated[int, Field(description="Of the day up to `accounted_until`, whose events have settled")]


class Publication(BaseModel):
    """An event type of this service. Counts are of events that the broker has confirmed."""

    type: str
    consumers: list[str]
    published: int
    published_recently: Recent
    published_accounted: Accounted
    per_second: PerSecond


class SubscribedType(BaseModel):
    """An event type that this service subscribes to. Kept ones are held, parked or discarded."""

    type: str
    applied: int
    applied_recently: Recent
    applied_accounted: Accounted
    kept_recently: Recent
    kept_accounted: Accounted
    per_second: PerSecond
    held: int
    parked: int


class Subscription(BaseModel):
    """One queue: the events of one producer, in their order."""

    producer: str
    queue: str
    messages: Annotated[int | None, Field(description="In the queue; null when the broker can't be asked")]
    lag_seconds: Annotated[
        float | None,
        Field(description="At most this long has the oldest event waited; null when no worker ever said"),
    ]
    per_second: PerSecond
    held: int
    parked: int
    types: list[SubscribedType]


class EventFlow(BaseModel):
    """One service as a node of the map, with the edges that end in it."""

    service: str
    workers: Annotated[int, Field(description="Workers that spoke within the last minute")]
    silent_seconds: Annotated[float | None, Field(description="Since a worker spoke last")]
    outbox_pending: int
    outbox_oldest_seconds: float
    held: int
    parked: int
    published_per_second: float
    applied_per_second: float
    accounted_until: datetime
    publications: list[Publication]
    subscriptions: list[Subscription]


@router.get("/event-flow", permission=READ, transactional=False)
async def read_event_flow(runtime: CurrentRuntime, context: CurrentContext) -> EventFlow:
    """The events that this service publishes and applies: rates, lag, held and parked messages."""
    # Before the transaction: nobody waits for the broker with one open.
    depths = await _depths(runtime)
    async with runtime.database.transaction(context) as tx:
        tx.audit(AuditEntry(action=Action.READ, resource_type="Operations.EventFlow"))
        return await _flow(tx, runtime, depths, now=time.time())


async def _depths(runtime: "Runtime") -> dict[str, int]:
    """Return the depths of the queues; nothing when the broker doesn't tell them at once."""
    management = Management.from_settings(runtime.settings)
    if management is None:
        return {}
    try:
        async with asyncio.timeout(BROKER_SECONDS), management as broker:
            return await broker.depths()
    except (httpx.HTTPError, ValueError, TimeoutError):
        return {}


async def _flow(tx: Transaction, runtime: "Runtime", depths: dict[str, int], *, now: float) -> EventFlow:
    known, present = contracts.load(), installed(runtime)
    counts = {(count.direction, count.type): count for count in await tally.counts(tx, epoch_seconds=now)}
    kept = await _kept(tx, Window.at(now))
    told = await workers.heard(tx)
    publications = [
        _publication(event, counts.get((Direction.PUBLISHED, event.type), NOT_COUNTED), present)
        for event in known.published_by(tx.service)
    ]
    types = [
        _subscribed(
            event.type, counts.get((Direction.APPLIED, event.type), NOT_COUNTED), kept.get(event.type)
        )
        for event in known.consumed_by(tx.service)
    ]
    subscriptions = [
        _subscription(queue, types, depths.get(queue), told, now)
        for queue in queues_of(runtime)
        # What services ask of each other's logs comes from no service: no edge of this map.
        if queue != event_queue(tx.service, contracts.PLATFORM)
    ]
    pending, oldest = await _outbox(tx)
    return EventFlow(
        service=tx.service,
        workers=told.alive,
        silent_seconds=told.silent_seconds,
        outbox_pending=pending,
        outbox_oldest_seconds=max(0.0, now - uuid7_time(oldest).timestamp()) if oldest else 0.0,
        held=sum(row.held for row in kept.values()),
        parked=sum(row.parked for row in kept.values()),
        published_per_second=sum(one.per_second for one in publications),
        applied_per_second=sum(one.per_second for one in subscriptions),
        accounted_until=datetime.fromtimestamp(Window.at(now).end * tally.HOUR_MS / 1000, tz=UTC),
        publications=publications,
        subscriptions=subscriptions,
    )


async def _kept(tx: Transaction, window: Window) -> dict[str, Row[Any]]:
    first, end = window.ids
    in_state = held_table.c.state
    # A corrected copy isn't an event of its own, and once it took effect its original is accounted for.
    own = held_table.c.root_event_id.is_(None) & held_table.c.settled_at.is_(None)
    recent = (held_table.c.event_id >= first) & own
    rows = await tx.fetch_all(
        select(
            held_table.c.type,
            func.count().filter(in_state == "held").label("held"),
            func.count().filter(in_state == "parked").label("parked"),
            func.count().filter(recent).label("recent"),
            func.count().filter(recent, held_table.c.event_id < end).label("accounted"),
        ).group_by(held_table.c.type)
    )
    return {row.type: row for row in rows}


async def _outbox(tx: Transaction) -> tuple[int, UUID | None]:
    oldest = select(outbox.c.event_id).order_by(outbox.c.id).limit(1).scalar_subquery()
    statement = select(func.count().label("pending"), oldest.label("oldest")).select_from(outbox)
    row = await tx.fetch_one(statement)
    return (0, None) if row is None else (row.pending, row.oldest)


def _publication(event: contracts.EventType, count: Count, present: tuple[str, ...]) -> Publication:
    return Publication(
        type=event.type,
        consumers=[name for name in event.consumers if not present or name in present],
        published=count.total,
        published_recently=count.recent,
        published_accounted=count.accounted,
        per_second=count.per_second,
    )


def _subscribed(event_type: str, count: Count, kept: Row[Any] | None) -> SubscribedType:
    return SubscribedType(
        type=event_type,
        applied=count.total,
        applied_recently=count.recent,
        applied_accounted=count.accounted,
        kept_recently=kept.recent if kept else 0,
        kept_accounted=kept.accounted if kept else 0,
        per_second=count.per_second,
        held=kept.held if kept else 0,
        parked=kept.parked if kept else 0,
    )


def _subscription(
    queue: str, types: list[SubscribedType], messages: int | None, told: Workers, now: float
) -> Subscription:
    producer = queue.partition(".")[2]
    own = [one for one in types if producer_of(one.type) == producer]
    waiting = told.queues.get(queue)
    if messages is None and told.alive and waiting is not None:
        messages = waiting.messages
    return Subscription(
        producer=producer,
        queue=queue,
        messages=messages,
        lag_seconds=_lag_seconds(waiting, messages, told, now),
        per_second=sum(one.per_second for one in own),
        held=sum(one.held for one in own),
        parked=sum(one.parked for one in own),
        types=own,
    )


def _lag_seconds(waiting: Waiting | None, messages: int | None, told: Workers, now: float) -> float | None:
    if messages == 0:
        return 0.0
    if waiting is not None and waiting.oldest_at is not None:
        return max(0.0, now - waiting.oldest_at.timestamp())
    if told.alive:
        return 0.0
    # Nobody was there to see when the first of them came; not before the last worker fell silent.
    return told.silent_seconds
