"""The worker's side of a rebuild: batches of the owners' logs into the shadow copy, and its steps.

Many events are one transaction, folded to the rows that they end in. A batch that comes twice, or beside
live events, changes nothing: see `projections.py`.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
import structlog
from aiormq.abc import DeliveredMessage
from pydantic import ValidationError
from sqlalchemy import Row

from clinic_shared import contracts, rebuild
from clinic_shared.comparing import Comparison, compare
from clinic_shared.consumer import Handlers, UnknownEventTypeError
from clinic_shared.crash import crash_point
from clinic_shared.deliveries import Subscriber, durably, raw_message, senders_of
from clinic_shared.envelope import Envelope, MalformedMessageError
from clinic_shared.failures import Verdict, judge
from clinic_shared.health import Health
from clinic_shared.lookout import Lookout
from clinic_shared.loops import keep_running
from clinic_shared.metrics import REBUILD_EVENTS
from clinic_shared.projections import Kept, keep
from clinic_shared.relay_leases import session, try_lock
from clinic_shared.senders import SenderRefusedError
from clinic_shared.tally import producer_of
from clinic_shared.topology import installed, replay_queue

if TYPE_CHECKING:
    from clinic_shared.database import Transaction
    from clinic_shared.service import Runtime

log = structlog.get_logger()

POLL_SECONDS = 0.5
_UNDER_WAY = "SELECT 1 FROM rebuild WHERE state IN ('requested', 'filling', 'comparing', 'swapped')"
LOOKS = 4
LOOK_SECONDS = 1.0
LANES = 2
PREFETCH = 4
LEADER_LOCK = 0x0C11_7201
REPLAY_ID = "replay_id"
PRODUCER = "producer"
AFTER_ID = "after_id"


@dataclass(frozen=True)
class Batch:
    """What one message of a replay holds: events of one owner, those after a place in its log."""

    replay_id: UUID
    producer: str
    after_id: UUID
    events: list[dict[str, Any]]

    @classmethod
    def read(cls, headers: Mapping[str, Any], body: bytes) -> "Batch":
        """Raises MalformedMessageError."""
        try:
            replay_id, after_id = (UUID(str(headers[name])) for name in (REPLAY_ID, AFTER_ID))
            return cls(replay_id, str(headers[PRODUCER]), after_id, orjson.loads(body))
        except (KeyError, ValueError) as error:
            raise MalformedMessageError("batch") from error

    def envelope_of(self, event: Mapping[str, Any]) -> Envelope:
        """Raises MalformedMessageError, also for an event of another owner."""
        envelope = Envelope.from_attributes(event)
        if producer_of(envelope.type) != self.producer:
            raise MalformedMessageError("type")
        return envelope

    def event_ids(self) -> list[UUID]:
        return [UUID(event["id"]) for event in self.events]


def rows_of(batch: Batch, handlers: Handlers) -> Iterator[list[Kept] | None]:
    """Yield what each event leaves in the read model, None for one that can't be read."""
    for event in batch.events:
        try:
            envelope = batch.envelope_of(event)
            subscription = handlers.subscription(envelope.type)
            payload = subscription.payload_model.model_validate(event["data"]["data"])
        except (MalformedMessageError, UnknownEventTypeError, ValidationError) as error:
            # A live one like it is parked and leaves nothing either.
            log.warning("replayed_event_skipped", event_type=event.get("type"), exc_info=error)
            yield None
            continue
        yield list(subscription.projector(envelope, payload)) if subscription.projector else []


class ShadowFiller:
    """Takes batches off the replay queue into the shadow copy. One process at a time, by the queue."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self._subscriber = Subscriber(
            runtime, replay_queue(runtime.service.name), self._settle, lanes=LANES, prefetch=PREFETCH
        )

    async def run(self, stop: asyncio.Event) -> None:
        await self._subscriber.run(stop)

    async def _settle(self, delivery: DeliveredMessage, over: asyncio.Event) -> None:
        message = raw_message(delivery, replay_queue(self._runtime.service.name))
        try:
            batch = Batch.read(message.headers, message.body)
            senders_of(self._runtime).require(batch.producer, message.sender)
        except (MalformedMessageError, SenderRefusedError):
            # Not one of ours: the log keeps what it may have been, and the rebuild's count will tell.
            log.exception("replay_batch_unreadable", queue=message.queue)
            return
        found = list(rows_of(batch, self._runtime.service.handlers))
        skipped = sum(rows is None for rows in found)
        kept = [row for rows in found if rows is not None for row in rows]

        async def fill(tx: "Transaction") -> None:
            # What was cancelled meanwhile is let go; so is what comes after everything was there.
            if not await rebuild.is_filling(tx, batch.replay_id):
                return
            await keep(tx, kept, schema=rebuild.SHADOW)
            await rebuild.note_batch(
                tx,
                replay_id=batch.replay_id,
                producer=batch.producer,
                after_id=batch.after_id,
                event_ids=batch.event_ids(),
                skipped=skipped,
            )
            crash_point("rebuild.batch.before")

        await durably(self._runtime.database, fill, over)
        crash_point("rebuild.batch.after")
        REBUILD_EVENTS.labels(outcome="applied").inc(len(batch.events) - skipped)
        REBUILD_EVENTS.labels(outcome="skipped").inc(skipped)


class Rebuilder:
    """Leads a rebuild from step to step; the steps are durable, so any worker can go on after a death."""

    def __init__(self, runtime: "Runtime") -> None:
        model = runtime.service.read_model
        if model is None:
            raise rebuild.NoReadModelError
        self._model = model
        self._runtime = runtime
        self._database = runtime.database
        self._health = Health.of(runtime)
        self._duty = Lookout.of(runtime).duty("rebuild", _UNDER_WAY, every_seconds=POLL_SECONDS)

    async def run(self, stop: asyncio.Event) -> None:
        await keep_running("rebuild", stop, partial(self._lead, stop), self._health)

    async def _lead(self, stop: asyncio.Event) -> None:
        dsn = self._runtime.settings.database_url.get_secret_value()
        async with session(dsn, self._runtime.service.name) as db:
            leads = False
            while not stop.is_set():
                leads = leads or await try_lock(db, LEADER_LOCK)
                if not (leads and await self.step()):
                    await self._duty.wait(stop)
                self._health.report("rebuild", None)

    async def step(self) -> bool:
        """Take one step of the rebuild that is under way. Returns False when there is nothing to do now."""
        async with self._database.transaction() as tx:
            row = await rebuild.under_way(tx)
        if row is None:
            return False
        steps = {
            "requested": self._begin,
            "filling": self._fill,
            "comparing": self._compare,
            "swapped": self._retire,
        }
        try:
            return await steps[row.state](row)
        except rebuild.ShapeChangedError:
            async with self._database.transaction() as tx:
                await rebuild.finish(
                    tx, self._model, row.rebuild_id, state="failed", failure="a migration changed the tables"
                )
            return True

    async def _begin(self, row: Row[Any]) -> bool:
        async with self._database.transaction() as tx:
            await rebuild.make_shadow(tx, self._model)
        async with self._database.transaction() as tx:
            await rebuild.begin_filling(tx, row.rebuild_id, self._wanted())
        log.info("rebuild_begun", rebuild_id=row.rebuild_id)
        return True

    def _wanted(self) -> list[str]:
        known = contracts.load()
        present = installed(self._runtime) or tuple(known.services)
        projected = self._runtime.service.handlers.projected_types
        return [name for name in projected if known.event(name).producer in present]

    async def _fill(self, row: Row[Any]) -> bool:
        async with self._database.transaction() as tx:
            return await rebuild.note_filled(tx, row.rebuild_id)

    async def _compare(self, row: Row[Any]) -> bool:
        comparison = await self._settled_comparison()
        async with self._database.transaction() as tx:
            await rebuild.note_comparison(tx, row.rebuild_id, comparison)
            if row.compare_only:
                await rebuild.finish(tx, self._model, row.rebuild_id, state="compared")
        if not row.compare_only:
            await self._swap(row.rebuild_id)
        log.info("rebuild_compared", rebuild_id=row.rebuild_id, difference_count=comparison.count)
        return True

    async def _settled_comparison(self) -> Comparison:
        """Compare until what differs stays the same: the live copy may only be a moment behind."""
        before: Comparison | None = None
        same = 0
        while True:
            async with self._database.transaction() as tx:
                comparison = await compare(tx, self._model)
            if not comparison.count:
                return comparison
            same = same + 1 if before is not None and comparison.differences == before.differences else 0
            if same >= LOOKS:
                return comparison
            before = comparison
            await asyncio.sleep(LOOK_SECONDS)

    async def _swap(self, rebuild_id: UUID) -> None:
        crash_point("rebuild.swap.before")
        while True:
            try:
                async with self._database.transaction() as tx:
                    await rebuild.swap(tx, self._model, rebuild_id)
            except Exception as error:
                # Somebody reads: let them, and try again, rather than make everybody wait behind.
                if judge(error) is not Verdict.TRANSIENT:
                    raise
                await asyncio.sleep(LOOK_SECONDS / 2)
            else:
                break
        crash_point("rebuild.swap.after")
        log.info("read_model_swapped", rebuild_id=rebuild_id)

    async def _retire(self, row: Row[Any]) -> bool:
        if self._runtime.clock.now() < row.finished_at + rebuild.KEEP_PREVIOUS:
            return False
        async with self._database.transaction() as tx:
            await rebuild.let_previous_go(tx, self._model, row.rebuild_id)
        return True
