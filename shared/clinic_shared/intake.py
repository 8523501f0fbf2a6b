"""Taking in what outside senders won't send twice: lab messages, payment notifications.

An item is durable before its acknowledgement leaves, in the database or, failing that, confirmed on
the service's inbound quorum queue; only when neither can hold it is the sender told to come again.
"""

import asyncio
import base64
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, cast
from uuid import UUID

import orjson
import structlog
from sqlalchemy import Column, DateTime, Integer, LargeBinary, Table, Text, Uuid, func, insert, select, update
from sqlalchemy.dialects.postgresql import JSONB

from clinic_shared.audit import AuditEntry, canonical_record, leaf_hash
from clinic_shared.broker import Broker, Outcome, OutgoingMessage, Publisher
from clinic_shared.context import Context
from clinic_shared.crash import crash_point, mutated
from clinic_shared.database import Transaction
from clinic_shared.errors import TemporarilyUnavailableError
from clinic_shared.events import audit_outbox, runtime_metadata
from clinic_shared.failures import is_disconnect
from clinic_shared.ids import uuid7
from clinic_shared.metrics import INTAKE_TOTAL
from clinic_shared.topology import intake_queue

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

log = structlog.get_logger()

DATABASE_SECONDS = 2.0
QUEUE_SECONDS = 3.0
AVOID_DATABASE_SECONDS = 2.0

Via = Literal["database", "queue"]

intake_table = Table(
    "intake",
    runtime_metadata,
    Column("id", Uuid, primary_key=True),
    Column("interface", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("attributes", JSONB, nullable=False),
    Column("answer", LargeBinary),
    Column("answer_type", Text),
    Column("received_at", DateTime(timezone=True), nullable=False),
    Column("via", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="received"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("duplicates", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("processed_at", DateTime(timezone=True)),
    Column("last_error", Text),
)


@dataclass(frozen=True, kw_only=True)
class Item:
    """Something received. The same bytes from the same sender over the same interface are a duplicate.

    `sender` may hold more than a name where an interface tells duplicates apart by more.
    `answer` is what the sender is told, and told again for a duplicate.
    """

    interface: str
    sender: str
    content_type: str
    body: bytes
    received_at: datetime
    answer: bytes | None = None
    answer_type: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    correlation_id: UUID = field(default_factory=uuid7)
    id: UUID = field(default_factory=uuid7)

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.body).digest()


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """`id` and `answer` are those of the first time when it is a `duplicate`."""

    id: UUID
    via: Via
    answer: bytes | None
    answer_type: str | None
    duplicate: bool = False


class Intake:
    """Accepts items for one service. Made once per process: it remembers that the database is away."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self._publisher = Publisher(Broker.of(runtime).publishing)
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
        crash_point("intake.accept.before")
        if mutated("ack-before-durable"):
            self._in_background(item, audit, context)
            return _accepted(item, "database")
        accepted = await self._into_database(item, audit, context)
        if accepted is None:
            accepted = await self._onto_queue(item, audit, context)
        crash_point("intake.durable.after")
        INTAKE_TOTAL.labels(interface=item.interface, via=accepted.via).inc()
        return accepted

    async def _into_database(self, item: Item, audit: AuditEntry, context: Context) -> Accepted | None:
        if time.monotonic() < self._avoid_database_until:
            return None
        storing = self._in_background(item, audit, context)
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
        log.warning("intake_without_database", interface=item.interface)
        return None

    def _in_background(self, item: Item, audit: AuditEntry, context: Context) -> asyncio.Task[Accepted]:
        task = asyncio.create_task(self._store(item, audit, context))
        self._left_running.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Accepted]) -> None:
        self._left_running.discard(task)
        if not task.cancelled():
            task.exception()

    async def _store(self, item: Item, audit: AuditEntry, context: Context) -> Accepted:
        async with self._runtime.database.transaction(context) as tx:
            earlier = await _duplicate_of(tx, item)
            if earlier is not None:
                return earlier
            await tx.execute(insert(intake_table).values(**_row(tx, item, "database")))
            tx.audit(audit)
        return _accepted(item, "database")

    async def _onto_queue(self, item: Item, audit: AuditEntry, context: Context) -> Accepted:
        record = canonical_record(
            audit, producer=self._runtime.service.name, recorded_at=item.received_at, context=context
        )
        message = OutgoingMessage(
            exchange="",
            routing_key=intake_queue(self._runtime.service.name),
            message_id=str(item.id),
            body=encode(item, record),
        )
        try:
            outcome = await asyncio.wait_for(self._publisher.publish(message), QUEUE_SECONDS)
        except TimeoutError:
            outcome = Outcome.UNKNOWN
        if outcome is not Outcome.CONFIRMED:
            log.error("intake_refused", interface=item.interface, outcome=outcome)
            raise TemporarilyUnavailableError
        return _accepted(item, "queue")


async def store_queued(tx: Transaction, item: Item, record: bytes) -> None:
    """Move an item that waited on the queue into the table, with its audit record."""
    if await _duplicate_of(tx, item) is not None:
        return
    await tx.execute(insert(intake_table).values(**_row(tx, item, "queue")))
    await tx.execute(insert(audit_outbox).values(record=record, leaf_hash=leaf_hash(record)))


async def _duplicate_of(tx: Transaction, item: Item) -> Accepted | None:
    """Return what was answered to the same bytes before, and count that they came again."""
    # Two copies at once must not both be the first.
    lock = f"{item.interface}|{item.sender}|{item.digest.hex()}"
    await tx.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(lock, 0))))
    row = await tx.fetch_one(
        select(intake_table.c.id, intake_table.c.via, intake_table.c.answer, intake_table.c.answer_type)
        .where(
            intake_table.c.interface == item.interface,
            intake_table.c.sender == item.sender,
            intake_table.c.digest == item.digest,
        )
        .order_by(intake_table.c.id)
        .limit(1)
    )
    if row is None:
        return None
    if row.id != item.id:
        again = update(intake_table).where(intake_table.c.id == row.id)
        await tx.execute(again.values(duplicates=intake_table.c.duplicates + 1))
    return Accepted(id=row.id, via=row.via, answer=row.answer, answer_type=row.answer_type, duplicate=True)


def _accepted(item: Item, via: Via) -> Accepted:
    return Accepted(id=item.id, via=via, answer=item.answer, answer_type=item.answer_type)


def _row(tx: Transaction, item: Item, via: Via) -> dict[str, Any]:
    return {
        "id": item.id,
        "interface": item.interface,
        "sender": item.sender,
        "digest": item.digest,
        "content_type": item.content_type,
        "body": item.body,
        "attributes": {**item.attributes, "correlation_id": str(item.correlation_id)},
        "answer": item.answer,
        "answer_type": item.answer_type,
        "received_at": item.received_at,
        "via": via,
        "next_attempt_at": tx.now,
    }


def encode(item: Item, audit_record: bytes) -> bytes:
    """Return an item as it waits on the queue."""
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
            "audit": base64.b64encode(audit_record).decode(),
        }
    )


def decode(body: bytes) -> tuple[Item, bytes]:
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
    )
    return item, base64.b64decode(document["audit"])
