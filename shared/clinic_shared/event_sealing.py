"""How `private` parts lie in the event log: sealed for their event, under data keys that a process uses for a day.

An event's own name stands in the seal, so that a part opens in no other event's row; an event that was carried on
keeps its first name. On the wire the part goes as contracts say: who reads the log opens it.
"""

import base64
import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
from sqlalchemy import (
    Column,
    ColumnElement,
    DateTime,
    LargeBinary,
    Row,
    Table,
    Text,
    and_,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from clinic_shared.encryption.ciphers import DataKey, KeyId, Place, SealBrokenError, key_id_of
from clinic_shared.encryption.keyring import Keyring
from clinic_shared.events import event_log, runtime_metadata
from clinic_shared.metrics import SEALS_BROKEN
from clinic_shared.sealing import MARKED

if TYPE_CHECKING:
    from clinic_shared.database import Transaction

SEALED = "event-key"
"""Stands in `seal` of what is sealed at rest, and never on the wire."""
KEY_SECONDS = 86_400.0
_KEY_ID_BYTES = 16
_COLUMN = "private"
_ENSURED = "event_key"

event_key_table = Table(
    "event_key",
    runtime_metadata,
    Column("key_id", Text, primary_key=True),
    Column("data_key", LargeBinary, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)
_KEEP_KEY = insert(event_key_table).on_conflict_do_nothing()

JOIN_KEY = f"LEFT JOIN event_key ON event.seal = '{SEALED}' AND event_key.key_id = event.private ->> 'key'"
"""For SQL that reads `event` with `event_key.data_key AS event_key`, as `opened` wants it."""
IN_CLEAR: ColumnElement[bool] = and_(event_log.c.seal == MARKED, event_log.c.private.is_not(None))


@dataclass(frozen=True)
class EventKey:
    """A data key that a process has in use, as it is kept and in the clear."""

    key_id: str
    key: DataKey
    wrapped: bytes
    under: KeyId
    until: float


def place_of_key(service: str, key_id: str) -> Place:
    return Place(service, "event_key", key_id)


def _place(service: str, event_id: UUID) -> Place:
    return Place(service, "event", str(event_id))


# -- writing


async def sealed_events(tx: "Transaction", events: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Return rows of the event log as they are stored. Raises KeysUnavailableError."""
    if not tx.keyring.encrypting or all(event["private"] is None for event in events):
        return events
    key = await _key_in_use(tx)
    return [event | _stored(tx.service, event["event_id"], event["private"], key) for event in events]


async def stored_part(tx: "Transaction", event_id: UUID, private: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that hold one event's part. Raises KeysUnavailableError."""
    if not tx.keyring.encrypting:
        return {"private": private, "seal": MARKED}
    return _stored(tx.service, event_id, private, await _key_in_use(tx))


def _stored(service: str, event_id: UUID, private: Mapping[str, Any] | None, key: EventKey) -> dict[str, Any]:
    if private is None:
        return {"private": None, "seal": None}
    sealed = key.key.seal(orjson.dumps(private), _place(service, event_id), _COLUMN)
    return {"private": {"key": key.key_id, "sealed": base64.b64encode(sealed).decode()}, "seal": SEALED}


async def _key_in_use(tx: "Transaction") -> EventKey:
    """Return a key that is kept when this transaction commits: the process's, or one that becomes it then.

    Until it is, nobody else uses it, so that no transaction waits for another's. Each connection makes sure once
    that the process's key is there: the database may be another one since, restored from a backup.
    """
    keyring, info = tx.keyring, tx.connection.info
    key = _still_good(tx.known.get(EventKey) or keyring.event_key, keyring)
    if key is None:
        key = tx.known[EventKey] = _new_key(keyring, tx.service)
    elif info.get(_ENSURED) == key.key_id or EventKey in tx.known:
        return key
    await tx.connection.execute(_KEEP_KEY, {"key_id": key.key_id, "data_key": key.wrapped})
    tx.count(partial(_adopt, keyring, info, key))
    return key


def _adopt(keyring: Keyring, info: dict[Any, Any], key: EventKey) -> None:
    keyring.event_key, info[_ENSURED] = key, key.key_id


def _still_good(key: EventKey | None, keyring: Keyring) -> EventKey | None:
    current = key is not None and key.under == keyring.current_id and key.until > time.monotonic()
    return key if current else None


def _new_key(keyring: Keyring, service: str) -> EventKey:
    key_id = os.urandom(_KEY_ID_BYTES).hex()
    place = place_of_key(service, key_id)
    key, wrapped = keyring.new_key(place)
    return EventKey(key_id, key, wrapped, key_id_of(wrapped, place), time.monotonic() + KEY_SECONDS)


# -- reading


def opened(keyring: Keyring, service: str, row: Any) -> Any:
    """Return a row, read with `private` as text and its `event_key`, as it goes out.

    Raises KeysUnavailableError, SealBrokenError.
    """
    if row.seal != SEALED:
        return row
    if row.private is None:
        return row._replace(seal=MARKED)
    part = _open(keyring, service, row.event_id, orjson.loads(row.private), row.event_key)
    return row._replace(private=part.decode(), seal=MARKED)


def opened_in_order(keyring: Keyring, service: str, rows: Sequence[Any]) -> tuple[list[Any], list[int]]:
    """Open rows of the outbox; returns those that can go out, and the ids of those that don't open.

    What comes after one of these in the order of its key can't go either. Raises KeysUnavailableError.
    """
    ready: list[Any] = []
    broken: list[int] = []
    blocked: set[UUID] = set()
    for row in rows:
        if row.partition_key in blocked:
            continue
        try:
            ready.append(opened(keyring, service, row))
        except SealBrokenError:
            blocked.add(row.partition_key)
            broken.append(row.id)
    return ready, broken


def _open(
    keyring: Keyring, service: str, event_id: UUID, stored: Mapping[str, Any], wrapped: bytes | None
) -> bytes:
    try:
        key_id, sealed = stored["key"], base64.b64decode(stored["sealed"])
    except (KeyError, TypeError, ValueError):
        wrapped = None
    if wrapped is None:
        SEALS_BROKEN.labels(table="event").inc()
        raise SealBrokenError
    key = keyring.data_key(bytes(wrapped), place_of_key(service, key_id))
    return key.open(sealed, _place(service, event_id), _COLUMN)


async def read_log(tx: "Transaction", *conditions: ColumnElement[bool], lock: bool = False) -> list[Row[Any]]:
    """Return rows of the event log with what opens them, in the order in which whoever changes them locks them."""
    key_of_event = and_(
        event_log.c.seal == SEALED, event_key_table.c.key_id == event_log.c.private["key"].astext
    )
    statement = (
        select(event_log, event_key_table.c.data_key.label("event_key"))
        .outerjoin_from(event_log, event_key_table, key_of_event)
        .where(*conditions)
        .order_by(event_log.c.event_id)
    )
    return list(await tx.fetch_all(statement.with_for_update(of=event_log) if lock else statement))


def private_of(tx: "Transaction", row: Any) -> Mapping[str, Any] | None:
    """Return the part of a row that `read_log` found. Raises KeysUnavailableError, SealBrokenError."""
    if row.private is None or row.seal != SEALED:
        part: Mapping[str, Any] | None = row.private
        return part
    event_id = row.carries or row.event_id
    found: Mapping[str, Any] = orjson.loads(
        _open(tx.keyring, tx.service, event_id, row.private, row.event_key)
    )
    return found


# -- changing


async def take_out(tx: "Transaction", patient_id: UUID, fields: Collection[str]) -> None:
    """Take fields out of all that a patient's events said: contracts let every private field be missing."""
    of_patient = (event_log.c.patient_id == patient_id, event_log.c.private.is_not(None))
    for row in await read_log(tx, *of_patient, lock=True):
        private = private_of(tx, row) or {}
        left = {name: value for name, value in private.items() if name not in fields}
        if len(left) < len(private):
            await rewrite(tx, row, left)


async def rewrite(tx: "Transaction", row: Any, private: Mapping[str, Any]) -> None:
    """Store an event's part anew."""
    values = await stored_part(tx, row.carries or row.event_id, private)
    await tx.execute(update(event_log).where(event_log.c.event_id == row.event_id).values(**values))
