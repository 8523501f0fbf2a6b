"""The rows of the intake: written once per content, several in one transaction where several are at hand."""

import asyncio
import base64
import contextvars
import hashlib
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal
from uuid import UUID

import orjson
from sqlalchemy import (
    Column,
    DateTime,
    Integer,
    LargeBinary,
    Numeric,
    Row,
    Table,
    Text,
    Uuid,
    func,
    insert,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB

from clinic_shared.database import Database, Transaction
from clinic_shared.encryption.ciphers import Place
from clinic_shared.encryption.keyring import Keyring, SealedRow
from clinic_shared.events import runtime_metadata
from clinic_shared.failures import is_disconnect
from clinic_shared.ids import uuid7
from clinic_shared.intake_marks import QueueMarks
from clinic_shared.intake_order import DatabaseTime, places_of_queued

DATABASE_SECONDS = 2.0
GROUP = 50
GROUPS_AT_ONCE = 2

_Waiting = tuple["Entry", "asyncio.Future[Accepted]"]

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
    Column("durable_at", DateTime(timezone=True), server_default=func.clock_timestamp()),
    Column("cause", Text),
    Column("set_aside", Text),
    Column("corrects", Uuid),
    Column("superseded_by", Uuid),
    Column("data_key", LargeBinary),
    Column("place", Numeric, server_default=text("nextval('intake_place')")),
)
"""With a `data_key`, `body`, `answer` and the content among the attributes are sealed with it; without, they are as
they came. `digest` is of the bytes as they came. By `place` they take their turns (`intake_order`)."""

CONTENT_ATTRIBUTES = ("before", "after")
"""Attributes that hold bytes of what was received, and so are sealed."""
_SEALED = "sealed"


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
    traceparent: str | None = None
    id: UUID = field(default_factory=uuid7)
    place: Decimal | None = None
    """Given by the database."""

    @cached_property
    def digest(self) -> bytes:
        return hashlib.sha256(self.body).digest()

    @property
    def key(self) -> tuple[str, str, bytes]:
        """What the same item has when it comes again."""
        return self.interface, self.sender, self.digest

    def accepted(self, via: "Via") -> "Accepted":
        return Accepted(id=self.id, via=via, answer=self.answer, answer_type=self.answer_type)


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """`id` and `answer` are those of the first time when it is a `duplicate`."""

    id: UUID
    via: Via
    answer: bytes | None
    answer_type: str | None
    duplicate: bool = False


@dataclass(frozen=True)
class Entry:
    """An item with the audit record of its acceptance; and when it was put on the queue, by the database's clock."""

    item: Item
    record: bytes
    queued_at: datetime | None = None


# Two copies at once must not both be the first. In one order, or two groups would wait for each other.
_LOCK = text("""
    SELECT pg_advisory_xact_lock(key)
    FROM (SELECT DISTINCT hashtextextended(name, 0) AS key FROM unnest(CAST(:names AS text[])) AS name ORDER BY key)
    AS keys
""")
_FIND = text("""
    SELECT DISTINCT ON (interface, sender, digest) interface, sender, digest, id, via, answer, answer_type, data_key
    FROM intake JOIN unnest(CAST(:interfaces AS text[]), CAST(:senders AS text[]), CAST(:digests AS bytea[]))
        AS given (interface, sender, digest) USING (interface, sender, digest)
    ORDER BY interface, sender, digest, coalesce(place, 0), id
""")


async def store(tx: Transaction, entries: Sequence[Entry], via: Via) -> list[Accepted]:
    """Add the items that are new, with their audit records; of the others, count that they came again."""
    if not entries:
        return []
    first = await _find_first(tx, [entry.item for entry in entries])
    accepted: list[Accepted] = []
    new: list[Entry] = []
    again: list[UUID] = []
    in_both: list[Entry] = []
    for entry in entries:
        item = entry.item
        known = first.get(item.key)
        if known is None:
            first[item.key] = known = item.accepted(via)
            new.append(entry)
            tx.keep_record(entry.record)
            accepted.append(known)
            continue
        if known.id != item.id:
            again.append(known.id)
        elif via == "queue":
            in_both.append(entry)
        accepted.append(replace(known, duplicate=True))
    if new:
        await tx.execute(insert(intake_table), await _rows(tx, new, via))
    for item_id in again:
        counted = update(intake_table).where(intake_table.c.id == item_id)
        await tx.execute(counted.values(duplicates=intake_table.c.duplicates + 1))
    await _place_earlier(tx, in_both)
    return accepted


async def _place_earlier(tx: Transaction, entries: Sequence[Entry]) -> None:
    """What was stored after it had been answered from the queue has its turn from there."""
    for entry, place in zip(entries, await _places(tx, entries), strict=True):
        late = update(intake_table).where(intake_table.c.id == entry.item.id, intake_table.c.place > place)
        await tx.execute(late.values(place=place))


async def _places(tx: Transaction, entries: Sequence[Entry]) -> Sequence[Decimal]:
    moments = [entry.queued_at or entry.item.received_at for entry in entries]
    return await places_of_queued(tx, moments) if moments else ()


async def _rows(tx: Transaction, entries: Sequence[Entry], via: Via) -> list[dict[str, Any]]:
    rows = [row_of(tx, entry.item, via) for entry in entries]
    if via == "database":
        return rows
    return [{**row, "place": place} for row, place in zip(rows, await _places(tx, entries), strict=True)]


async def _find_first(tx: Transaction, items: Sequence[Item]) -> dict[tuple[str, str, bytes], Accepted]:
    keys = [item.key for item in items]
    names = [f"{interface}|{sender}|{digest.hex()}" for interface, sender, digest in keys]
    await tx.execute(_LOCK, {"names": names})
    columns = dict(zip(("interfaces", "senders", "digests"), map(list, zip(*keys, strict=True)), strict=True))
    return {
        (row.interface, row.sender, bytes(row.digest)): Accepted(
            id=row.id, via=row.via, answer=answer_of(tx, row), answer_type=row.answer_type
        )
        for row in await tx.fetch_all(_FIND, columns)
    }


def place_of(service: str, item_id: UUID) -> Place:
    return Place(service, "intake", str(item_id))


def seal_item(keyring: Keyring, service: str, item: Item) -> tuple[SealedRow, dict[str, Any]]:
    """Return what is sealed of an item, and its attributes as they are stored."""
    around = {name: item.attributes[name] for name in CONTENT_ATTRIBUTES if item.attributes.get(name)}
    content = orjson.dumps(around) if around else None
    sealed = keyring.seal_row(
        place_of(service, item.id), {"body": item.body, "answer": item.answer, _SEALED: content}
    )
    around_sealed = sealed.values[_SEALED]
    if sealed.data_key is None or around_sealed is None:
        return sealed, dict(item.attributes)
    attributes = {name: value for name, value in item.attributes.items() if name not in around}
    return sealed, {**attributes, _SEALED: base64.b64encode(around_sealed).decode()}


def row_of(tx: Transaction, item: Item, via: Via) -> dict[str, Any]:
    sealed, attributes = seal_item(tx.keyring, tx.service, item)
    return {
        "id": item.id,
        "interface": item.interface,
        "sender": item.sender,
        "digest": item.digest,
        "content_type": item.content_type,
        "body": sealed.values["body"],
        "data_key": sealed.data_key,
        "attributes": {
            **attributes,
            "correlation_id": str(item.correlation_id),
            "traceparent": item.traceparent,
        },
        "answer": sealed.values["answer"],
        "answer_type": item.answer_type,
        "received_at": item.received_at,
        "via": via,
        # Else by the column's default, which is the database's clock.
        **({} if tx.clock_is_the_machines else {"next_attempt_at": tx.now}),
    }


def body_of(tx: Transaction, row: Row[Any]) -> bytes:
    """Return the bytes as they came, of a row with `id`, `data_key` and `body`."""
    opened = tx.keyring.open_row(place_of(tx.service, row.id), row.data_key, {"body": row.body})
    return opened["body"] or b""


def answer_of(tx: Transaction, row: Row[Any]) -> bytes | None:
    """Return what the sender was told, of a row with `id`, `data_key` and `answer`."""
    return tx.keyring.open_row(place_of(tx.service, row.id), row.data_key, {"answer": row.answer})["answer"]


def attributes_of(tx: Transaction, row: Row[Any]) -> dict[str, Any]:
    """Return all that was noted before the answer, content included, of a row with `id`, `data_key` and `attributes`."""
    return opened_attributes(tx.keyring, place_of(tx.service, row.id), row.data_key, row.attributes)


def opened_attributes(
    keyring: Keyring, place: Place, data_key: bytes | None, stored: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the attributes with the content among them."""
    attributes = dict(stored)
    sealed = attributes.pop(_SEALED, None)
    if sealed is None:
        return attributes
    content = keyring.open_row(place, data_key, {_SEALED: base64.b64decode(sealed)})[_SEALED]
    return {**attributes, **orjson.loads(content or b"{}")}


def item_of(tx: Transaction, row: Row[Any]) -> Item:
    """Return what was received, of its row."""
    attributes = attributes_of(tx, row)
    correlation_id = UUID(attributes.pop("correlation_id"))
    traceparent = attributes.pop("traceparent", None)
    return Item(
        id=row.id,
        interface=row.interface,
        sender=row.sender,
        content_type=row.content_type,
        body=body_of(tx, row),
        received_at=row.received_at,
        answer=answer_of(tx, row),
        answer_type=row.answer_type,
        attributes=attributes,
        correlation_id=correlation_id,
        traceparent=traceparent,
        place=row.place,
    )


class GroupCommit:
    """Commits what is accepted at the same time together: what comes during a commit goes into the next.

    Nobody waits for a group to fill. Items that came together stay together, as they have an order among them.
    Where one item makes its group fail, each is tried by itself.
    """

    def __init__(self, database: Database, time: DatabaseTime, marks: QueueMarks) -> None:
        self._database = database
        self._time = time
        self._marks = marks
        self._waiting: deque[Sequence[_Waiting]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers = 0

    def store(self, entries: Sequence[Entry]) -> list["asyncio.Future[Accepted]"]:
        """Return what is done when each item is durable, or raises what its transaction raised."""
        loop = asyncio.get_running_loop()
        together: list[_Waiting] = [(entry, loop.create_future()) for entry in entries]
        self._waiting.append(together)
        if self._writers < GROUPS_AT_ONCE:
            self._writers += 1
            self._start(self._write())
        return [done for _, done in together]

    def _next_group(self) -> list[_Waiting]:
        group = list(self._waiting.popleft())
        while self._waiting and len(group) + len(self._waiting[0]) <= GROUP:
            group += self._waiting.popleft()
        return [one for one in group if not one[1].done()]

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # In a context of its own: it works for others than the request that happens to start it.
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _write(self) -> None:
        try:
            while self._waiting:
                committing = self._start(self._commit(self._next_group()))
                # A server that hangs holds up who waits for it, not who comes later.
                _, hanging = await asyncio.wait({committing}, timeout=DATABASE_SECONDS)
                for task in hanging:
                    task.cancel()
        finally:
            self._writers -= 1

    async def _commit(self, group: Sequence[_Waiting]) -> None:
        try:
            async with self._database.transaction() as tx:
                await self._time.look(tx)
                await self._marks.leave(tx)
                accepted = await store(tx, [entry for entry, _ in group], "database")
        except Exception as error:  # noqa: BLE001  # raised to whoever waits for it
            await self._failed(group, error)
        else:
            for (_, done), result in zip(group, accepted, strict=True):
                if not done.done():
                    done.set_result(result)

    async def _failed(self, group: Sequence[_Waiting], error: Exception) -> None:
        if len(group) > 1 and not is_disconnect(error):
            for one in group:
                await self._commit([one])
            return
        for _, done in group:
            if not done.done():
                done.set_exception(error)
