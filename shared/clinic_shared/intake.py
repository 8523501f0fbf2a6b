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
from clinic_shared.encryption.keyring import Keyring
from clinic_shared.errors import TemporarilyUnavailableError
from clinic_shared.failures import is_disconnect
from clinic_shared.intake_answers import AnswerNotes
from clinic_shared.intake_store import (
    DATABASE_SECONDS,
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
]

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
            body=encode(entry, self._runtime.database.keyring, self._runtime.service.name),
        )
        try:
            outcome = await asyncio.wait_for(self._publisher.publish(message), QUEUE_SECONDS)
        except TimeoutError:
            outcome = Outcome.UNKNOWN
        if outcome is not Outcome.CONFIRMED:
            log.error("intake_refused", interface=item.interface, outcome=outcome)
            raise TemporarilyUnavailableError
        return item.accepted("queue")


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
    return Entry(item, base64.b64decode(document["audit"]))
