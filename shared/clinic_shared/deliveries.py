"""From a queue into handlers: in order per partition key, acknowledged after commit.

Messages that wait take effect in one transaction; where one of them fails, none has, and they go one by one,
so that each fails by itself.

What a message can't do now goes to the `held` table and is acknowledged: the broker is never asked
to redeliver, since every redelivery counts towards the limit that dead-letters healthy messages too.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import aiormq
import structlog
from aiormq import spec
from aiormq.abc import DeliveredMessage
from sqlalchemy import text

from clinic_shared import held
from clinic_shared.broker import Broker, BrokerUnavailableError, acknowledge, broker_errors
from clinic_shared.consumer import Disposition, apply, apply_together
from clinic_shared.contracts import PLATFORM
from clinic_shared.crash import crash_point, mutated
from clinic_shared.database import Database, Transaction
from clinic_shared.envelope import Envelope
from clinic_shared.events import Origin
from clinic_shared.failures import Failure, Verdict, is_disconnect, judge
from clinic_shared.health import Health
from clinic_shared.held import KeyIsWaitingError, RawMessage
from clinic_shared.lanes import Lanes, Settled
from clinic_shared.loops import keep_running, pause
from clinic_shared.metrics import DELIVERY_SECONDS, HANDLER_SECONDS, INBOX_DUPLICATES
from clinic_shared.progress import InHand, Progress
from clinic_shared.senders import Senders
from clinic_shared.tally import producer_of

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

log = structlog.get_logger()

PREFETCH = 64
LANES = 8
TOGETHER = 16
TRIES = 3
TRY_AGAIN_SECONDS = (0.02, 0.2)
CONSUME_SECONDS = (5, 80)
"""The first wait and the longest: where thousands are waiting and the processor is busy, an answer takes its time."""
DRAIN_SECONDS = 15
WATCH_SECONDS = 0.5
SILENCE_SECONDS = 30
"""So long without a delivery, a consumer asks whether there is something to deliver."""
RENEW_SECONDS = 300
"""So long without one, it begins anew: a queue that is deleted and at once declared again may believe that it delivers
to the consumers of the one before (RabbitMQ 3.10), and what it gave them is neither waiting nor with anybody."""

Work = Callable[[DeliveredMessage, asyncio.Event], Awaitable[None]]
WorkTogether = Callable[[Sequence[DeliveredMessage]], Awaitable[bool]]


class Subscriber:
    """Takes messages off one queue and hands each to `work`, in order per partition key.

    `work` gets the delivery and an event that is set when the session is over; it returns once the
    message is durable elsewhere, and only then is it acknowledged. `together`, if there is one, gets several
    that are waiting; when it returns False, nothing has become of them and each goes to `work`.
    """

    def __init__(
        self,
        runtime: "Runtime",
        queue: str,
        work: Work,
        *,
        together: WorkTogether | None = None,
        lanes: int = LANES,
        prefetch: int = PREFETCH,
    ) -> None:
        self.queue = queue
        self._name = f"consumer:{queue}"
        self._work = work
        self._together = together
        self._lanes = lanes
        self._prefetch = prefetch
        self._database = runtime.database
        self._connection = Broker.of(runtime).consuming
        self._health = Health.of(runtime)
        self._in_hand = Progress.of(runtime).queue(queue)
        self._consume_seconds = CONSUME_SECONDS[0]

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until told to stop; what was delivered by then is finished first."""
        await keep_running(self._name, stop, partial(self._session, stop), self._health)

    async def _session(self, stop: asyncio.Event) -> None:
        # Without its database a consumer has nowhere to put a message: the queue keeps it.
        await until_it_answers(self._database, stop, partial(self._health.report, self._name))
        if stop.is_set():
            return
        session = _Session(self._work, self._together, self._in_hand, lanes=self._lanes)
        channel = await self._connection.channel(prefetch=self._prefetch)
        try:
            underlay = cast("aiormq.Channel", await channel.get_underlay_channel())
            underlay.consumers = _LateDeliveries(session.receive)
            consuming = await self._begin(underlay, session)
            self._health.report(self._name, None)
            tag = cast("str", consuming.consumer_tag)
            await self._watch(stop, underlay, tag, session)
            if not underlay.is_closed and tag in underlay.consumers:
                with broker_errors():
                    await underlay.basic_cancel(tag, timeout=DRAIN_SECONDS)
                    # What the broker had on its way comes after its cancel-ok; any answer, after that.
                    await underlay.basic_qos(prefetch_count=self._prefetch, timeout=DRAIN_SECONDS)
                await session.drain()
        finally:
            await session.close()
            self._connection.discard(channel)

    async def _begin(self, underlay: aiormq.Channel, session: "_Session") -> spec.Basic.ConsumeOk:
        """Ask for deliveries, each time in vain for twice as long."""
        seconds, self._consume_seconds = (
            self._consume_seconds,
            min(2 * self._consume_seconds, CONSUME_SECONDS[1]),
        )
        with broker_errors():
            # A queue that is just being deleted may take the broker half a minute to refuse.
            consuming = await underlay.basic_consume(self.queue, session.receive, timeout=seconds)
        self._consume_seconds = CONSUME_SECONDS[0]
        return consuming

    async def _watch(
        self, stop: asyncio.Event, channel: aiormq.Channel, tag: str, session: "_Session"
    ) -> None:
        """Return when told to stop or to begin anew; raise when the channel, the consumer or a lane is gone."""
        stopping = asyncio.create_task(stop.wait())
        try:
            while not (stop.is_set() or session.is_stale):
                if channel.is_closed or tag not in channel.consumers or session.over.is_set():
                    raise BrokerUnavailableError
                if session.is_silent:
                    await self._ask(channel, session)
                await asyncio.wait({stopping}, timeout=WATCH_SECONDS)
        finally:
            stopping.cancel()

    async def _ask(self, channel: aiormq.Channel, session: "_Session") -> None:
        """Begin anew if messages wait and none comes: the broker may have lost a consumer without telling it.

        One that stands by for the active consumer of a busy queue begins anew too, and stands by again.
        """
        with broker_errors():
            declared = await channel.queue_declare(self.queue, passive=True, timeout=DRAIN_SECONDS)
        if declared.message_count and session.is_silent:
            log.info("consumer_without_deliveries", queue=self.queue, messages=declared.message_count)
            raise BrokerUnavailableError
        session.heard()


class _LateDeliveries(dict[str, Any]):
    """The consumers of one channel, which has one, so that a delivery finds it even after its end.

    RabbitMQ may send deliveries after cancel-ok (a quorum queue's wait in the channel's mailbox
    meanwhile). aiormq would drop them, and each would count against its message.
    """

    def __init__(self, receive: Callable[[DeliveredMessage], Awaitable[None]]) -> None:
        super().__init__()
        self._receive = receive

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(key, default or self._receive)


class _Session:
    """What one channel delivered: handed out in order per partition key, acknowledged once it is durable."""

    def __init__(self, work: Work, together: WorkTogether | None, in_hand: InHand, *, lanes: int) -> None:
        self._work = work
        self._together = together
        self._in_hand = in_hand
        # What an earlier session had in hand went back to the queue, and comes again.
        in_hand.clear()
        self.over = asyncio.Event()
        self._settled = Settled()
        self._acknowledging = asyncio.Lock()
        self._is_lost = False
        self._lanes = Lanes(self._handle_safely, lanes=lanes, most=TOGETHER if together else 1)
        self._delivered_at = time.monotonic()
        self.heard()

    def heard(self) -> None:
        self._heard_at = time.monotonic()

    @property
    def is_silent(self) -> bool:
        """Nothing is in hand, and nothing has come for a while."""
        return self._in_hand.is_empty and time.monotonic() - self._heard_at > SILENCE_SECONDS

    @property
    def is_stale(self) -> bool:
        """Nothing is in hand, and nothing has come for so long that nothing may come any more."""
        return self._in_hand.is_empty and time.monotonic() - self._delivered_at > RENEW_SECONDS

    async def receive(self, delivery: DeliveredMessage) -> None:
        # Nothing may be awaited here: aiormq runs this as a task of its own per delivery.
        self._delivered_at = time.monotonic()
        self.heard()
        self._in_hand.take(delivery)
        message = raw_message(delivery, "")
        key = message.event_id if mutated("order-off") else message.partition_key
        self._lanes.put(str(key), delivery)

    async def _handle_safely(self, waiting: Sequence[DeliveredMessage]) -> None:
        try:
            await self._handle_all(waiting)
        except Exception:  # not even kept: unacknowledged, it comes again on the next channel
            log.exception("delivery_failed")
            self.over.set()

    async def _handle_all(self, waiting: Sequence[DeliveredMessage]) -> None:
        if self._together is not None and len(waiting) > 1 and not self.over.is_set():
            crash_point("consumer.deliver")
            if await self._together(waiting):
                crash_point("consumer.commit.after")
                await self._done_with(waiting)
                return
        for delivery in waiting:
            if not self.over.is_set():
                await self._handle(delivery)

    async def _handle(self, delivery: DeliveredMessage) -> None:
        crash_point("consumer.deliver")
        if mutated("ack-before-commit"):
            await self._done_with([delivery])
            await self._work(delivery, self.over)
            return
        await self._work(delivery, self.over)
        if self.over.is_set():
            return
        crash_point("consumer.commit.after")
        await self._done_with([delivery])

    async def _done_with(self, deliveries: Sequence[DeliveredMessage]) -> None:
        # When the channel is gone the messages are delivered again, and the inbox knows them.
        try:
            channel = cast("aiormq.Channel", deliveries[0].channel)
            # One at a time: a tag that comes after an acknowledgement which covers it ends the channel.
            async with self._acknowledging:
                if self._is_lost:
                    return
                upto, single = self._settled.add([_tag_of(delivery) for delivery in deliveries])
                await acknowledge(channel, *single, upto=upto)
        except BrokerUnavailableError:
            log.info("acknowledgement_lost")
            # Finding that out takes seconds: the others needn't, and the session begins anew.
            self._is_lost = True
            self.over.set()
        for delivery in deliveries:
            self._in_hand.settle(delivery)
        crash_point("consumer.ack.after")

    async def drain(self) -> None:
        """Finish what was delivered: closing the channel instead would count against each message."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._lanes.join()
        except TimeoutError:
            log.warning("deliveries_not_drained")

    async def close(self) -> None:
        """End the lanes, letting the messages in hand finish: a transaction isn't cut in the middle."""
        self.over.set()
        await self.drain()
        await self._lanes.cancel()


def _tag_of(delivery: DeliveredMessage) -> int:
    return cast("int", cast("spec.Basic.Deliver", delivery.delivery).delivery_tag)


def raw_message(delivery: DeliveredMessage, queue: str) -> RawMessage:
    properties = delivery.header.properties
    headers: dict[str, Any] = properties.headers or {}
    return RawMessage(
        queue=queue,
        headers=headers,
        body=delivery.body,
        message_id=properties.message_id,
        sender=properties.user_id,
    )


def senders_of(runtime: "Runtime") -> Senders:
    """Return whom this process's own user tells apart."""
    return Senders.seen_by(
        Broker.of(runtime).consuming.user,
        runtime.service.name,
        takes_unnamed=runtime.settings.takes_unnamed_senders,
    )


class Consumer:
    """Applies the events of one queue: applied or duplicate, else held, else parked."""

    def __init__(self, runtime: "Runtime", queue: str) -> None:
        self._runtime = runtime
        self._queue = queue
        self._subscriber = Subscriber(runtime, queue, self._settle, together=self._apply_together)

    async def run(self, stop: asyncio.Event) -> None:
        await self._subscriber.run(stop)

    async def _settle(self, delivery: DeliveredMessage, over: asyncio.Event) -> None:
        """Bring one message to a disposition that is committed, or return when the session is over."""
        message = raw_message(delivery, self._queue)
        tries = 0
        while not over.is_set():
            tries += 1
            started_at = time.monotonic()
            try:
                await self._apply(message)
            except Exception as error:  # noqa: BLE001  # judged, logged, and kept if it isn't tried again
                verdict = judge(error)
                if verdict is Verdict.DISCONNECTED:
                    await until_it_answers(self._runtime.database, over)
                if verdict in {Verdict.TRANSIENT, Verdict.DISCONNECTED} and tries < TRIES:
                    await pause(over, random.uniform(*TRY_AGAIN_SECONDS))  # noqa: S311  # jitter
                    continue
                await self._keep(message, error, verdict, over, milliseconds_since(started_at))
            return

    def _read(self, message: RawMessage) -> Envelope:
        """Raises MalformedMessageError, SenderRefusedError."""
        envelope = Envelope.from_headers(message.headers)
        producer = producer_of(envelope.type)
        # What services ask of each other is nobody's in particular: it is its source's.
        asked_by = envelope.source if producer == PLATFORM else producer
        senders_of(self._runtime).require(asked_by, message.sender)
        return envelope

    async def _apply(self, message: RawMessage) -> None:
        envelope = self._read(message)
        known = envelope.type in self._runtime.service.handlers.subscriptions
        with HANDLER_SECONDS.labels(type=envelope.type if known else "unknown").time():
            disposition = await apply(self._runtime, envelope, message.body, in_turn=True)
        self._count(envelope, disposition)

    async def _apply_together(self, deliveries: Sequence[DeliveredMessage]) -> bool:
        if mutated("ack-before-commit"):
            return False
        begun = time.monotonic()
        try:
            messages = [raw_message(delivery, self._queue) for delivery in deliveries]
            read = [(self._read(message), message.body) for message in messages]
            applied = await apply_together(self._runtime, read)
        except Exception as error:  # judged when each fails by itself
            log.info("handled_one_by_one", queue=self._queue, messages=len(deliveries), exc_info=error)
            return False
        share = (time.monotonic() - begun) / len(applied)
        for envelope, disposition in applied:
            HANDLER_SECONDS.labels(type=envelope.type).observe(share)
            self._count(envelope, disposition)
        return True

    @staticmethod
    def _count(envelope: Envelope, disposition: Disposition) -> None:
        if disposition is Disposition.DUPLICATE:
            INBOX_DUPLICATES.inc()
        elif envelope.origin is not Origin.REPLAY:
            delay = time.time() - envelope.recorded_at.timestamp()
            DELIVERY_SECONDS.labels(producer=producer_of(envelope.type)).observe(max(0.0, delay))

    async def _keep(
        self,
        message: RawMessage,
        error: Exception,
        verdict: Verdict,
        over: asyncio.Event,
        duration_ms: int,
    ) -> None:
        async def write(tx: Transaction) -> None:
            if isinstance(error, KeyIsWaitingError):
                await held.hold_behind(tx, message)
                return
            failure = Failure.of(message.type, error, consumer=tx.service)
            keep = held.park if verdict is Verdict.HOPELESS else held.hold
            await keep(tx, message, cause=failure.cause, error=failure.error, duration_ms=duration_ms)

        await durably(self._runtime.database, write, over)
        log.warning(
            "message_kept",
            event_id=message.event_id,
            queue=self._queue,
            disposition="parked" if verdict is Verdict.HOPELESS else "held",
            exc_info=error,
        )


def milliseconds_since(started_at: float) -> int:
    return round((time.monotonic() - started_at) * 1000)


async def durably(
    database: Database, write: Callable[[Transaction], Awaitable[None]], over: asyncio.Event
) -> None:
    """Commit `write`, waiting out an outage of the database. Returns unwritten only when `over`."""
    while not over.is_set():
        try:
            async with database.transaction() as tx:
                await write(tx)
        except Exception as error:
            if not is_disconnect(error):
                raise
            await until_it_answers(database, over)
        else:
            return


async def until_it_answers(
    database: Database, over: asyncio.Event, report: Callable[[str], None] | None = None
) -> None:
    """Wait until the database answers (or `over`). Messages in hand stay unacknowledged meanwhile."""
    while not over.is_set():
        try:
            async with database.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        except Exception as error:
            if not is_disconnect(error):
                raise
            if report is not None:
                report("the database is unavailable")
            await pause(over, random.uniform(0.2, 1.0))  # noqa: S311  # jitter
        else:
            return
