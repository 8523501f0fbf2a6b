"""Taking in what outside senders won't send twice: lab messages, payment notifications.

An item is durable before its acknowledgement leaves, in the database or, failing that, confirmed on
the service's inbound quorum queue; only when neither can hold it is the sender told to come again.
"""

import asyncio
import base64
import time
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
from clinic_shared.errors import TemporarilyUnavailableError
from clinic_shared.failures import is_disconnect
from clinic_shared.intake_answers import AnswerNotes
from clinic_shared.intake_store import DATABASE_SECONDS, Accepted, Entry, GroupCommit, Item, intake_table
from clinic_shared.metrics import INTAKE_TOTAL
from clinic_shared.topology import intake_queue

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

__all__ = ["Accepted", "Intake", "Item", "decode", "encode", "intake_table"]

log = structlog.get_logger()

QUEUE_SECONDS = 3.0
AVOID_DATABASE_SECONDS = 2.0


class Intake:
    """Accepts items for one service. Made once per process: it remembers that the database is away."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self._publisher = Publisher(Broker.of(runtime).publishing)
        self._database = GroupCommit(runtime.database)
        self._answers = AnswerNotes(runtime.database, runtime.clock)
        runtime.closing.push_async_callback(self._answers.close)
        self._avoid_database_until = 0.0
        self._left_running: set[asyncio.Task[Accepted]] = set()

    @classmethod
    def of(cls, runtime: "Runtime") -> "Intake":
        intake = runtime.resources.get(cls)
        if intake is None:
            intake = cls(runtime)
            runtime.provide(intake)
        return cast("Intake", intake)

    async def accept(self, item: Item, *, audit: AuditEntry, context: Context) -> Accepted:
        """Make an item durable with its audit record. Raises TemporarilyUnavailableError."""
        item = replace(item, traceparent=context.traceparent)
        crash_point("intake.accept.before")
        record = canonical_record(
            audit, producer=self._runtime.service.name, recorded_at=item.received_at, context=context
        )
        entry = Entry(item, record)
        if mutated("ack-before-durable"):
            self._in_background(entry)
            return item.accepted("database")
        accepted = await self._into_database(entry)
        if accepted is None:
            accepted = await self._onto_queue(entry)
        crash_point("intake.durable.after")
        self._answers.answered(accepted.id)
        INTAKE_TOTAL.labels(interface=item.interface, via=accepted.via).inc()
        return accepted

    async def _into_database(self, entry: Entry) -> Accepted | None:
        if time.monotonic() < self._avoid_database_until:
            return None
        storing = self._in_background(entry)
        # Not `asyncio.timeout`: cancelling a statement on a hung server takes longer than the
        # deadline. Should it still commit, the queued copy is known by its id.
        done, _ = await asyncio.wait({storing}, timeout=DATABASE_SECONDS)
        if not done:
            storing.cancel()
        elif (error := storing.exception()) is None:
            return storing.result()
        elif not is_disconnect(error):
            raise error
        self._avoid_database_until = time.monotonic() + AVOID_DATABASE_SECONDS
        log.warning("intake_without_database", interface=entry.item.interface)
        return None

    def _in_background(self, entry: Entry) -> asyncio.Task[Accepted]:
        task = asyncio.create_task(self._database.store(entry))
        self._left_running.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Accepted]) -> None:
        self._left_running.discard(task)
        if not task.cancelled():
            task.exception()

    async def _onto_queue(self, entry: Entry) -> Accepted:
        item = entry.item
        message = OutgoingMessage(
            exchange="",
            routing_key=intake_queue(self._runtime.service.name),
            message_id=str(item.id),
            body=encode(entry),
        )
        try:
            outcome = await asyncio.wait_for(self._publisher.publish(message), QUEUE_SECONDS)
        except TimeoutError:
            outcome = Outcome.UNKNOWN
        if outcome is not Outcome.CONFIRMED:
            log.error("intake_refused", interface=item.interface, outcome=outcome)
            raise TemporarilyUnavailableError
        return item.accepted("queue")


def encode(entry: Entry) -> bytes:
    """Return an item as it waits on the queue."""
    item = entry.item
    return orjson.dumps(
        {
            "id": item.id,
            "interface": item.interface,
            "sender": item.sender,
            "content_type": item.content_type,
            "body": base64.b64encode(item.body).decode(),
            "received_at": item.received_at,
            "answer": base64.b64encode(item.answer).decode() if item.answer is not None else None,
            "answer_type": item.answer_type,
            "attributes": item.attributes,
            "correlation_id": item.correlation_id,
            "traceparent": item.traceparent,
            "audit": base64.b64encode(entry.record).decode(),
        }
    )


def decode(body: bytes) -> Entry:
    document = orjson.loads(body)
    answer = document["answer"]
    item = Item(
        id=UUID(document["id"]),
        interface=document["interface"],
        sender=document["sender"],
        content_type=document["content_type"],
        body=base64.b64decode(document["body"]),
        received_at=datetime.fromisoformat(document["received_at"]),
        answer=base64.b64decode(answer) if answer is not None else None,
        answer_type=document["answer_type"],
        attributes=document["attributes"],
        correlation_id=UUID(document["correlation_id"]),
        traceparent=document.get("traceparent"),
    )
    return Entry(item, base64.b64decode(document["audit"]))
