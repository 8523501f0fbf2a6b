"""Taking in what outside senders won't send twice: lab messages, payment notifications.

An item is durable before its acknowledgement leaves, in the database or, failing that, confirmed on
the service's inbound quorum queue; only when neither can hold it is the sender told to come again.
"""

import asyncio
import base64
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, cast
from uuid import UUID

import orjson
import structlog

from clinic_shared.audit import AuditEntry, canonical_record
from clinic_shared.broker import Broker, Outcome, OutgoingMessage, Publisher
from clinic_shared.context import Context
from clinic_shared.crash import crash_point, mutated
from clinic_shared.encryption.keyring import Keyring
from clinic_shared.errors import TemporarilyUnavailableError
from clinic_shared.failures import is_disconnect
from clinic_shared.intake_answers import AnswerNotes
from clinic_shared.intake_marks import QueueMarks
from clinic_shared.intake_order import DatabaseTime
from clinic_shared.intake_roll import Roll
from clinic_shared.intake_store import (
    DATABASE_SECONDS,
    GROUP,
    Accepted,
    Entry,
    GroupCommit,
    Item,
    answer_of,
    attributes_of,
    body_of,
    intake_table,
    opened_attributes,
    place_of,
    seal_item,
)
from clinic_shared.lookout import INTAKE, Lookout
from clinic_shared.metrics import INTAKE_TOTAL
from clinic_shared.topology import intake_queue

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

__all__ = [
    "Accepted",
    "Intake",
    "Item",
    "answer_of",
    "attributes_of",
    "body_of",
    "decode",
    "encode",
    "intake_table",
    "keep_roll",
]

log = structlog.get_logger()

QUEUE_SECONDS = 3.0
AVOID_DATABASE_SECONDS = 2.0


class Intake:
    """Accepts items for one service. Made once per process: it remembers that the database is away."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self._publisher = Publisher(Broker.of(runtime).publishing)
        self._time = DatabaseTime()
        self._marks = QueueMarks(runtime.database)
        self.roll = Roll(runtime.database, self._marks)
        self._database = GroupCommit(runtime.database, self._time, self._marks)
        self._answers = AnswerNotes(runtime.database, runtime.clock)
        runtime.closing.push_async_callback(self._answers.close)
        runtime.closing.push_async_callback(self.roll.close)
        runtime.closing.push_async_callback(self._marks.close)
        self._avoid_database_until = 0.0

    @classmethod
    def of(cls, runtime: "Runtime") -> "Intake":
        intake = runtime.resources.get(cls)
        if intake is None:
            intake = cls(runtime)
            runtime.provide(intake)
        return cast("Intake", intake)

    async def accept(self, item: Item, *, audit: AuditEntry, context: Context) -> Accepted:
        """Make an item durable with its audit record. Raises TemporarilyUnavailableError."""
        [accepted] = await self.accept_in_order([(item, audit)], context=context)
        if isinstance(accepted, BaseException):
            raise accepted
        return accepted

    async def accept_in_order(
        self, items: Sequence[tuple[Item, AuditEntry]], *, context: Context
    ) -> list[Accepted | BaseException]:
        """Make items durable that came together, each as `accept` does: they take effect in their order.

        Behind a part of them that is refused, so is the rest: else what comes again would come too late.
        """
        outcomes: list[Accepted | BaseException] = []
        for start in range(0, len(items), GROUP):
            if refused := next(
                (one for one in outcomes if isinstance(one, TemporarilyUnavailableError)), None
            ):
                return outcomes + [refused] * (len(items) - start)
            entries = [self._entry(item, audit, context) for item, audit in items[start : start + GROUP]]
            outcomes += await self._make_durable(entries)
        return outcomes

    def _entry(self, item: Item, audit: AuditEntry, context: Context) -> Entry:
        item = replace(item, traceparent=context.traceparent)
        crash_point("intake.accept.before")
        record = canonical_record(
            audit, producer=self._runtime.service.name, recorded_at=item.received_at, context=context
        )
        return Entry(item, record)

    async def _make_durable(self, entries: Sequence[Entry]) -> list[Accepted | BaseException]:
        if mutated("ack-before-durable"):
            self._store(entries)
            return [entry.item.accepted("database") for entry in entries]
        outcomes = await self._into_database(entries)
        waiting = [n for n, outcome in enumerate(outcomes) if outcome is None]
        queued = await asyncio.gather(
            *(self._onto_queue(entries[n]) for n in waiting), return_exceptions=True
        )
        by_number = dict(zip(waiting, queued, strict=True))
        durable = [by_number[n] if outcome is None else outcome for n, outcome in enumerate(outcomes)]
        crash_point("intake.durable.after")
        for entry, accepted in zip(entries, durable, strict=True):
            if isinstance(accepted, Accepted):
                self._answers.answered(accepted.id)
                INTAKE_TOTAL.labels(interface=entry.item.interface, via=accepted.via).inc()
        Lookout.of(self._runtime).call(INTAKE)
        return durable

    async def _into_database(self, entries: Sequence[Entry]) -> list[Accepted | BaseException | None]:
        """Return what became of each: None where the database is away."""
        if time.monotonic() < self._avoid_database_until:
            return [None] * len(entries)
        storing = self._store(entries)
        # Not `asyncio.timeout`: cancelling a statement on a hung server takes longer than the
        # deadline. Should it still commit, the queued copy is known by its id.
        await asyncio.wait(storing, timeout=DATABASE_SECONDS)
        outcomes = [_outcome(one) for one in storing]
        if None in outcomes:
            self._avoid_database_until = time.monotonic() + AVOID_DATABASE_SECONDS
            log.warning("intake_without_database", interface=entries[0].item.interface)
        return outcomes

    def _store(self, entries: Sequence[Entry]) -> "list[asyncio.Future[Accepted]]":
        storing = self._database.store(entries)
        for one in storing:
            one.add_done_callback(_seen)
        return storing

    async def _onto_queue(self, entry: Entry) -> Accepted:
        item = entry.item
        message = OutgoingMessage(
            exchange="",
            routing_key=intake_queue(self._runtime.service.name),
            message_id=str(item.id),
            body=encode(
                replace(entry, queued_at=self._time.now()),
                self._runtime.database.keyring,
                self._runtime.service.name,
            ),
        )
        try:
            outcome = await asyncio.wait_for(self._publisher.publish(message), QUEUE_SECONDS)
        except TimeoutError:
            outcome = Outcome.UNKNOWN
        if outcome is not Outcome.CONFIRMED:
            log.error("intake_refused", interface=item.interface, outcome=outcome)
            raise TemporarilyUnavailableError
        self._marks.used()
        return item.accepted("queue")


async def keep_roll(runtime: "Runtime", stop: asyncio.Event) -> None:
    """A loop of each process that accepts: without it, it isn't waited for when it dies (`intake_roll`)."""
    await Intake.of(runtime).roll.keep(stop)


def _outcome(storing: "asyncio.Future[Accepted]") -> Accepted | BaseException | None:
    if not storing.done():
        storing.cancel()
        return None
    error = storing.exception()
    if error is None:
        return storing.result()
    return None if is_disconnect(error) else error


def _seen(storing: "asyncio.Future[Accepted]") -> None:
    """So that nobody is told of an exception that was never retrieved."""
    if not storing.cancelled():
        storing.exception()


def encode(entry: Entry, keyring: Keyring, service: str) -> bytes:
    """Return an item as it waits on the queue, which is on disk too: sealed like its row."""
    item = entry.item
    sealed, attributes = seal_item(keyring, service, item)
    return orjson.dumps(
        {
            "id": item.id,
            "interface": item.interface,
            "sender": item.sender,
            "content_type": item.content_type,
            "body": _base64(sealed.values["body"]),
            "data_key": _base64(sealed.data_key),
            "received_at": item.received_at,
            "queued_at": entry.queued_at,
            "answer": _base64(sealed.values["answer"]),
            "answer_type": item.answer_type,
            "attributes": attributes,
            "correlation_id": item.correlation_id,
            "traceparent": item.traceparent,
            "audit": base64.b64encode(entry.record).decode(),
        }
    )


def _base64(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def decode(body: bytes, keyring: Keyring, service: str) -> Entry:
    """Read an item off the queue; those of the release before are in clear. Raises SealBrokenError, ValueError."""
    document = orjson.loads(body)
    item_id, data_key = UUID(document["id"]), _bytes(document.get("data_key"))
    place = place_of(service, item_id)
    opened = keyring.open_row(place, data_key, {name: _bytes(document[name]) for name in ("body", "answer")})
    item = Item(
        id=item_id,
        interface=document["interface"],
        sender=document["sender"],
        content_type=document["content_type"],
        body=opened["body"] or b"",
        received_at=datetime.fromisoformat(document["received_at"]),
        answer=opened["answer"],
        answer_type=document["answer_type"],
        attributes=opened_attributes(keyring, place, data_key, document["attributes"]),
        correlation_id=UUID(document["correlation_id"]),
        traceparent=document.get("traceparent"),
    )
    queued_at = document.get("queued_at")
    return Entry(
        item,
        base64.b64decode(document["audit"]),
        queued_at=None if queued_at is None else datetime.fromisoformat(queued_at),
    )
