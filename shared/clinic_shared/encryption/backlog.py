"""Encrypting what was stored in clear, and bringing old data keys under the current key, while everything runs.

Batches of rows, each in a transaction of its own. It can stop anywhere and be started again: what is done shows
in the rows. One process of a service at a time.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import Column, ColumnElement, Row, Table, false, func, literal, or_, select, tuple_, update

from clinic_shared.database import Database, Transaction
from clinic_shared.encryption import old_events
from clinic_shared.encryption.ciphers import KEY_ID_BYTES, Place
from clinic_shared.event_sealing import event_key_table, place_of_key
from clinic_shared.events import event_log
from clinic_shared.health import Health
from clinic_shared.held import held_table, place_of_letter, sealed_body
from clinic_shared.intake_store import intake_table, item_of, place_of, row_of
from clinic_shared.loops import keep_running, pause

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

log = structlog.get_logger()

NAME = "encryption of what is stored"
BATCH = 100
BETWEEN_BATCHES_SECONDS = 0.05
INTERVAL_SECONDS = 3600.0
_LOCK = 0x0C11_7EC2


@dataclass(frozen=True)
class Kind:
    """A table whose rows have a data key each, and how a row in clear is sealed: None where a row is nothing else."""

    table: Table
    place: Callable[[str, Row[Any]], Place]
    sealed: Callable[[Transaction, Row[Any]], dict[str, Any]] | None = None

    @property
    def key(self) -> tuple[Column[Any], ...]:
        return tuple(self.table.primary_key.columns)

    @property
    def in_clear(self) -> ColumnElement[bool]:
        return self.table.c.data_key.is_(None) if self.sealed is not None else false()

    def not_under(self, key_id: bytes) -> ColumnElement[bool]:
        """Under another key: what a rotation has still to do. Reads the whole table."""
        under = func.substring(self.table.c.data_key, 2, KEY_ID_BYTES)
        return or_(self.in_clear, under != literal(key_id))

    def key_of(self, row: Row[Any]) -> tuple[Any, ...]:
        return tuple(getattr(row, column.name) for column in self.key)


def _sealed_item(tx: Transaction, row: Row[Any]) -> dict[str, Any]:
    sealed = row_of(tx, item_of(tx, row), row.via)
    return {name: sealed[name] for name in ("body", "answer", "attributes", "data_key")}


EVENT_KEYS = Kind(event_key_table, lambda service, row: place_of_key(service, row.key_id))
"""One for many events, so that a rotation doesn't write the log anew."""

KINDS = (
    Kind(intake_table, lambda service, row: place_of(service, row.id), _sealed_item),
    Kind(
        held_table,
        lambda service, row: place_of_letter(service, row.event_id),
        lambda tx, row: sealed_body(tx, row.event_id, bytes(row.body)),
    ),
    EVENT_KEYS,
)


async def encrypt_stored(runtime: "Runtime", stop: asyncio.Event) -> None:
    """Encrypt what the release before stored in clear, now and every hour, until told to stop."""
    health = Health.of(runtime)

    async def work() -> None:
        while not stop.is_set():
            if runtime.database.keyring.encrypting:
                await encrypt_backlog(runtime.database, stop, (*KINDS, *runtime.service.encrypted))
            health.report(NAME, None)
            await pause(stop, INTERVAL_SECONDS)

    await keep_running(NAME, stop, work, health)


async def encrypt_backlog(database: Database, stop: asyncio.Event, kinds: Sequence[Kind] = KINDS) -> int:
    """Encrypt all rows in clear; returns how many. What another process has in hand is left to it."""
    done = [await _work_through(database, kind, kind.in_clear, stop) for kind in kinds if kind.sealed]
    return sum(done) + await old_events.seal_events(database, stop)


async def rewrap_all(database: Database, stop: asyncio.Event, kinds: Sequence[Kind] = KINDS) -> int:
    """Bring every data key under the current key; returns how many it changed."""
    current = database.keyring.current_id
    return sum([await _work_through(database, kind, kind.not_under(current), stop) for kind in kinds])


async def _work_through(
    database: Database, kind: Kind, wanted: ColumnElement[bool], stop: asyncio.Event
) -> int:
    done = 0
    after: tuple[Any, ...] | None = None
    while not stop.is_set():
        async with database.transaction() as tx:
            rows = await _next(tx, kind, wanted, after)
            for row in rows:
                await _bring_up_to_date(tx, kind, row)
        if not rows:
            break
        done, after = done + len(rows), kind.key_of(rows[-1])
        await pause(stop, BETWEEN_BATCHES_SECONDS)
    if done:
        log.info("stored_rows_encrypted", table=kind.table.name, count=done)
    return done


async def _next(
    tx: Transaction, kind: Kind, wanted: ColumnElement[bool], after: tuple[Any, ...] | None
) -> Sequence[Row[Any]]:
    mine = await tx.fetch_one(select(func.pg_try_advisory_xact_lock(_LOCK)))
    if mine is None or not mine[0]:
        return []
    rows = select(kind.table).where(wanted).order_by(*kind.key).limit(BATCH)
    if after is not None:
        rows = rows.where(tuple_(*kind.key) > tuple_(*after))
    # Whoever has a row in hand is about to change it; the next pass finds it.
    return await tx.fetch_all(rows.with_for_update(skip_locked=True))


async def _bring_up_to_date(tx: Transaction, kind: Kind, row: Row[Any]) -> None:
    values: dict[str, Any] = {}
    if row.data_key is not None:
        values["data_key"] = tx.keyring.rewrap(bytes(row.data_key), kind.place(tx.service, row))
    elif kind.sealed is not None:
        values = kind.sealed(tx, row)
    this = [column == value for column, value in zip(kind.key, kind.key_of(row), strict=True)]
    await tx.execute(update(kind.table).where(*this).values(**values))


async def count_by_key(database: Database, kinds: Sequence[Kind] = KINDS) -> dict[str, dict[str | None, int]]:
    """Return how many rows of each table are under which key; None counts those in clear."""
    counted: dict[str, dict[str | None, int]] = {}
    async with database.transaction() as tx:
        for kind in kinds:
            key_id = func.encode(func.substring(kind.table.c.data_key, 2, KEY_ID_BYTES), "hex").label(
                "key_id"
            )
            encrypted = kind.in_clear | kind.table.c.data_key.is_not(None)
            counting = select(key_id, func.count().label("rows")).where(encrypted).group_by(key_id)
            rows = await tx.fetch_all(counting)
            counted[kind.table.name] = {row.key_id: row.rows for row in rows}
        if EVENT_KEYS in kinds:
            counted[event_log.name] = {None: await old_events.count_in_clear(tx)}
    return counted
