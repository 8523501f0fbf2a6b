"""Rows by the dozen leave in the database exactly what a statement for each of them would."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
from clinic_shared.bulk import ForRows, InsertRows, UpdateRows, excluded
from clinic_shared.database import Database, Transaction
from clinic_shared.ids import uuid7
from clinic_shared.testing import Servers
from sqlalchemy import BigInteger, Column, DateTime, LargeBinary, MetaData, Table, Text, Uuid, select, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.exc import IntegrityError

pytestmark = pytest.mark.servers

THING = Table(
    "thing",
    MetaData(),
    Column("thing_id", Uuid, primary_key=True),
    Column("order", BigInteger, primary_key=True),
    Column("version", BigInteger),
    Column("name", Text),
    Column("names", ARRAY(Text)),
    Column("seen_at", DateTime(timezone=True)),
    Column("content", JSONB(none_as_null=True)),
    Column("sealed", LargeBinary),
    Column("kind", Text, server_default="plain"),
    prefixes=["TEMPORARY"],
)
EVERYTHING = {
    "order": 2**60,
    "version": None,
    "name": "О'Нил \\ \"\n: %s :rows",
    "names": ["a,b", "{}", ""],
    "seen_at": datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC),
    "content": {"number": 1.5, "none": None, "text": "x"},
    "sealed": b"\x00\xff\\x",
    "kind": "other",
}
FIRST = InsertRows(THING, named={"thing_id", "order", "version", "name"})
NEWER = InsertRows(
    THING,
    named={"thing_id", "order", "version", "name"},
    replacing=excluded(("version", "name")),
    where="kept.version < excluded.version",
)
ID = uuid7()


@pytest.fixture
async def tx(servers: Servers) -> AsyncIterator[Transaction]:
    url = servers.postgres_admin_url.replace("postgresql://", "postgresql+psycopg://", 1)
    database = Database(url, service="bulk-test", pool_size=1)
    try:
        async with database.transaction() as tx:
            await tx.connection.run_sync(THING.metadata.create_all)
            yield tx
    finally:
        await database.dispose()


def thing(version: int, name: str, *, order: int = 1, thing_id: UUID = ID) -> dict[str, object]:
    return {"thing_id": thing_id, "order": order, "version": version, "name": name}


async def names(tx: Transaction) -> list[str]:
    return [row.name for row in await tx.fetch_all(select(THING).order_by(THING.c.order))]


async def test_every_kind_of_value_is_stored_as_it_was_given(tx: Transaction) -> None:
    rows = [
        {"thing_id": uuid7(), **EVERYTHING},
        {**dict.fromkeys(EVERYTHING), "thing_id": uuid7(), "order": 1},
    ]
    statement = InsertRows(THING)
    for row in rows:
        tx.write_later(statement, row)
    stored = await tx.fetch_all(select(THING).order_by(THING.c.thing_id))
    assert [row._asdict() for row in stored] == rows
    nulls = await tx.fetch_one(text("SELECT count(*) FROM thing WHERE content IS NULL AND names IS NULL"))
    assert nulls is not None
    assert nulls[0] == 1


async def test_columns_that_rows_do_not_name_take_their_defaults(tx: Transaction) -> None:
    tx.write_later(FIRST, thing(1, "one"))
    assert [row.kind for row in await tx.fetch_all(select(THING))] == ["plain"]


async def test_a_row_that_is_there_makes_all_fail_or_stays_as_told(tx: Transaction) -> None:
    tx.write_later(FIRST, thing(1, "one"))
    tx.write_later(
        InsertRows(THING, named={"thing_id", "order", "version", "name"}, or_nothing=True), thing(2, "x")
    )
    assert await names(tx) == ["one"]
    tx.write_later(FIRST, thing(2, "two"))
    with pytest.raises(IntegrityError):
        async with tx.connection.begin_nested():
            await names(tx)


@pytest.mark.parametrize(
    ("versions", "kept"), [((1, 2, 3), "3"), ((3, 1, 2), "3"), ((2, 3, 1), "3"), ((1, 1), "1")]
)
async def test_rows_of_one_key_take_turns(tx: Transaction, versions: tuple[int, ...], kept: str) -> None:
    for version in versions:
        tx.write_later(NEWER, thing(version, str(version)))
        tx.write_later(NEWER, thing(version, f"other {version}", order=2))
    assert await names(tx) == [kept, f"other {kept}"]


async def test_an_update_changes_the_rows_that_are_meant_in_turn(tx: Transaction) -> None:
    rename: ForRows = UpdateRows(THING, ("name",))
    for order in (1, 2, 3):
        tx.write_later(FIRST, thing(1, "before", order=order))
    for order, name in ((1, "first"), (3, "third"), (1, "first again")):
        tx.write_later(rename, {"thing_id": ID, "order": order, "name": name})
    assert await names(tx) == ["first again", "before", "third"]
