"""A read model made again from the event logs beside the live one, compared with it, and put in its place.

The copy stands in the schema `shadow`. From the moment it is being filled, every live event is kept in
both (`projections.keep_in_read_model`), so that owners need send only what was committed before. After
the swap the old tables stand in `previous` and are kept current, so that rolling back loses nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Numeric,
    Row,
    Table,
    Text,
    Uuid,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert

from clinic_shared import replay
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.crash import crash_point
from clinic_shared.database import Transaction
from clinic_shared.errors import DomainError, NotFoundError
from clinic_shared.events import Event, runtime_metadata, wire_instant
from clinic_shared.ids import uuid7
from clinic_shared.replay import ReplayPurpose, Wanted

if TYPE_CHECKING:
    from clinic_shared.comparing import Comparison

LIVE, SHADOW, PREVIOUS, DISCARDED = "public", "shadow", "previous", "discarded"
KEEP_PREVIOUS = timedelta(hours=24)
"""How long a rebuild can be rolled back."""
SWAP_LOCK_MS = 200
"""Less than PostgreSQL's deadlock_timeout: a swap that meets a long report gives up before either is killed."""
_GATE_LOCK = 0x0C11_7200
"""As in `read_model_gate()`."""

rebuild_table = Table(
    "rebuild",
    runtime_metadata,
    Column("rebuild_id", Uuid, primary_key=True),
    Column("state", Text, nullable=False),
    Column("compare_only", Boolean, nullable=False),
    Column("requested_at", DateTime(timezone=True), nullable=False),
    Column("requested_by", Uuid),
    Column("begun_at", DateTime(timezone=True)),
    Column("filled_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    Column("event_count", BigInteger),
    Column("difference_count", BigInteger),
    Column("differences", JSONB),
    Column("checksum", Text),
    Column("failure", Text),
)

batch_table = Table(
    "replay_batch",
    runtime_metadata,
    Column("replay_id", Uuid, primary_key=True),
    Column("producer", Text, primary_key=True),
    Column("after_id", Uuid, primary_key=True),
    Column("event_count", BigInteger, nullable=False),
    Column("skipped_count", BigInteger, nullable=False),
    Column("checksum", Numeric, nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class ReadModel:
    """What can be rebuilt: tables that only projections write, and the event that tells of it."""

    tables: tuple[Table, ...]
    rebuilt_event: str

    @property
    def names(self) -> list[str]:
        return sorted(table.name for table in self.tables)


class NoReadModelError(DomainError):
    """The service keeps no read model that could be made again from the event logs."""

    slug = "no-read-model"
    title = "This service has nothing to rebuild"
    status = 404
    fix = "Name a service that keeps one, such as reporting."


class RebuildRunningError(DomainError):
    """One rebuild at a time: each fills the same shadow copy."""

    slug = "rebuild-running"
    title = "A rebuild is running already"
    fix = "Wait for it or cancel it: clinic reporting status."


class NotToRollBackError(DomainError):
    """Only the last swap can be rolled back, for as long as the copy of before is kept."""

    slug = "rebuild-not-to-roll-back"
    title = "This rebuild can't be rolled back"
    fix = "Roll back the rebuild whose state is `swapped`; if there is none, rebuild again."


class RebuildOverError(DomainError):
    """It was finished, failed or cancelled before."""

    slug = "rebuild-over"
    title = "The rebuild is over"
    fix = "Read its state; one that is `swapped` can be rolled back."


class ShapeChangedError(Exception):
    """A migration changed the live tables after the copy was made."""


# -- what an operator asks for


async def request(tx: Transaction, *, compare_only: bool) -> UUID:
    """Ask for a rebuild; the worker begins it. Raises RebuildRunningError."""
    row = await tx.fetch_one(
        insert(rebuild_table)
        .values(
            rebuild_id=uuid7(),
            state="requested",
            compare_only=compare_only,
            requested_at=tx.now,
            requested_by=tx.context.principal.subject,
        )
        .on_conflict_do_nothing()
        .returning(rebuild_table.c.rebuild_id)
    )
    if row is None:
        raise RebuildRunningError
    _audit(tx, row.rebuild_id, "compare" if compare_only else "rebuild")
    return UUID(str(row.rebuild_id))


async def cancel(tx: Transaction, model: ReadModel, rebuild_id: UUID) -> None:
    """Stop a rebuild before its swap. Raises NotFoundError, RebuildOverError."""
    row = await _locked(tx, rebuild_id)
    if row.state not in {"requested", "filling", "comparing"}:
        raise RebuildOverError(detail=f"It is {row.state}.")
    await replay.cancel_if_running(tx, rebuild_id)
    await finish(tx, model, rebuild_id, state="cancelled")
    _audit(tx, rebuild_id, "cancel")


async def roll_back(tx: Transaction, model: ReadModel, rebuild_id: UUID) -> None:
    """Put the tables of before the swap back; they have got every event since."""
    row = await _locked(tx, rebuild_id)
    if row.state != "swapped":
        raise NotToRollBackError(detail=f"It is {row.state}.")
    await _exchange(tx, model, incoming=PREVIOUS, outgoing=DISCARDED)
    await _set(tx, rebuild_id, state="rolled-back", finished_at=tx.now)
    await _drop_tables(tx, model, DISCARDED)
    _audit(tx, rebuild_id, "roll-back")


async def listed(tx: Transaction, *, limit: int) -> Sequence[Row[Any]]:
    """Return rebuilds, the newest first."""
    newest_first = rebuild_table.c.requested_at.desc()
    return await tx.fetch_all(select(rebuild_table).order_by(newest_first).limit(limit))


async def shown(tx: Transaction, rebuild_id: UUID) -> Row[Any]:
    """Return one rebuild. Raises NotFoundError."""
    row = await tx.fetch_one(select(rebuild_table).where(rebuild_table.c.rebuild_id == rebuild_id))
    if row is None:
        raise NotFoundError
    return row


def _audit(tx: Transaction, rebuild_id: UUID, decision: str) -> None:
    tx.audit(
        AuditEntry(
            action=Action.EXECUTE,
            resource_type="ReadModel",
            resource_id=str(rebuild_id),
            details={"decision": decision},
        )
    )


async def _locked(tx: Transaction, rebuild_id: UUID) -> Row[Any]:
    row = await tx.fetch_one(
        select(rebuild_table).where(rebuild_table.c.rebuild_id == rebuild_id).with_for_update()
    )
    if row is None:
        raise NotFoundError
    return row


async def _set(tx: Transaction, rebuild_id: UUID, **values: Any) -> None:
    await tx.execute(update(rebuild_table).where(rebuild_table.c.rebuild_id == rebuild_id).values(**values))


# -- what the worker does, one transaction each


async def under_way(tx: Transaction) -> Row[Any] | None:
    """Return the rebuild that has something left to do, if any; one that goes on before one that waits."""
    statement = select(rebuild_table).where(
        rebuild_table.c.state.in_(("requested", "filling", "comparing", "swapped"))
    )
    return (await tx.execute(statement.order_by(rebuild_table.c.state == "swapped").limit(1))).one_or_none()


async def make_shadow(tx: Transaction, model: ReadModel) -> None:
    """Make empty tables like the live ones, down to the names of their indexes."""
    await _drop_tables(tx, model, SHADOW)
    for name in model.names:
        # Indexes are made by their definitions: LIKE would give them other names, and a migration
        # after the swap would look for them in vain.
        await tx.execute(
            text(
                f'CREATE TABLE {SHADOW}."{name}" (LIKE {LIVE}."{name}" '
                "INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)"
            )
        )
        for definition in (await tx.execute(_INDEXES, {"table": name, "live": LIVE})).scalars().all():
            await tx.execute(text(definition.replace(f" ON {LIVE}.", f" ON {SHADOW}.", 1)))
        key = (await tx.execute(_PRIMARY_KEY, {"table": name, "live": LIVE})).one()
        await tx.execute(
            text(f'ALTER TABLE {SHADOW}."{name}" ADD CONSTRAINT "{key.conname}" {key.definition}')
        )


_INDEXES = text("""
    SELECT pg_get_indexdef(indexrelid) FROM pg_index
    JOIN pg_class t ON t.oid = indrelid WHERE t.relname = :table AND t.relnamespace = CAST(:live AS regnamespace)
    AND NOT indisprimary ORDER BY indexrelid
""")
_PRIMARY_KEY = text("""
    SELECT conname, pg_get_constraintdef(c.oid) AS definition FROM pg_constraint c
    JOIN pg_class t ON t.oid = conrelid WHERE t.relname = :table AND t.relnamespace = CAST(:live AS regnamespace)
    AND contype = 'p'
""")


async def begin_filling(tx: Transaction, rebuild_id: UUID, event_types: Sequence[str]) -> None:
    """Keep every live event in both copies from here on, and ask the owners for all before."""
    row = await _locked(tx, rebuild_id)
    if row.state != "requested":
        return
    await _close_gate(tx)
    await _set(tx, rebuild_id, state="filling", begun_at=tx.now)
    wanted = Wanted(purpose=ReplayPurpose.REBUILD, event_types=event_types)
    await replay.request(tx, wanted, replay_id=rebuild_id)


async def is_filling(tx: Transaction, rebuild_id: UUID) -> bool:
    """Tell whether batches are still wanted, and keep it so until the transaction ends."""
    row = await tx.fetch_one(
        select(rebuild_table.c.state)
        .where(rebuild_table.c.rebuild_id == rebuild_id)
        .with_for_update(read=True)
    )
    return row is not None and row.state == "filling"


async def note_batch(
    tx: Transaction,
    *,
    replay_id: UUID,
    producer: str,
    after_id: UUID,
    event_ids: Sequence[UUID],
    skipped: int,
) -> None:
    """Remember what came. The same batch may come again, after an owner died even with more in it."""
    values = {
        "event_count": len(event_ids),
        "skipped_count": skipped,
        "checksum": replay.add_up(0, event_ids),
    }
    await tx.execute(
        insert(batch_table)
        .values(replay_id=replay_id, producer=producer, after_id=after_id, **values)
        .on_conflict_do_update(index_elements=["replay_id", "producer", "after_id"], set_=values)
    )


async def received(tx: Transaction, rebuild_id: UUID) -> dict[str, Row[Any]]:
    """Return by producer how many events came, how many couldn't be read, and their checksum."""
    sums = [
        func.sum(batch_table.c[name]).label(name) for name in ("event_count", "skipped_count", "checksum")
    ]
    rows = await tx.fetch_all(
        select(batch_table.c.producer, *sums)
        .where(batch_table.c.replay_id == rebuild_id)
        .group_by(batch_table.c.producer)
    )
    return {row.producer: row for row in rows}


async def note_filled(tx: Transaction, rebuild_id: UUID) -> bool:
    """Go on to the comparison if everything that the owners sent is here."""
    row = await _locked(tx, rebuild_id)
    if row.state != "filling":
        return False
    came = await received(tx, rebuild_id)
    total = 0
    for part in await replay.parts(tx, [rebuild_id]):
        mine = came.get(part.producer)
        count, checksum = (mine.event_count, int(mine.checksum) % 2**64) if mine else (0, 0)
        if part.completed_at is None or (count, replay.hexadecimal(checksum)) != (
            part.event_count,
            part.checksum,
        ):
            return False
        total += part.event_count
    await _set(tx, rebuild_id, state="comparing", filled_at=tx.now, event_count=total)
    await tx.execute(batch_table.delete().where(batch_table.c.replay_id == rebuild_id))
    return True


async def swap(tx: Transaction, model: ReadModel, rebuild_id: UUID) -> None:
    """Put the rebuilt tables in the place of the live ones, which stay beside. Readers see either."""
    row = await _locked(tx, rebuild_id)
    if row.state != "comparing":
        return
    await _exchange(tx, model, incoming=SHADOW, outgoing=PREVIOUS)
    # Its copy of before has just made room for this one's.
    await tx.execute(update(rebuild_table).where(rebuild_table.c.state == "swapped").values(state="done"))
    await _set(tx, rebuild_id, state="swapped", finished_at=tx.now)
    tx.emit(
        Event(
            type=model.rebuilt_event,
            subject=row.rebuild_id,
            aggregate_version=1,
            data={
                "rebuild_id": str(row.rebuild_id),
                "event_count": row.event_count,
                "difference_count": row.difference_count,
                "checksum": row.checksum,
                "swapped_at": wire_instant(tx.now),
            },
        )
    )


async def note_comparison(tx: Transaction, rebuild_id: UUID, comparison: "Comparison") -> None:
    await _set(
        tx,
        rebuild_id,
        difference_count=comparison.count,
        differences=[difference.document() for difference in comparison.differences],
        checksum=comparison.checksum,
    )


async def finish(tx: Transaction, model: ReadModel, rebuild_id: UUID, **values: Any) -> None:
    """End a rebuild without a swap."""
    await _set(tx, rebuild_id, finished_at=tx.now, **values)
    await _close_gate(tx)
    await _drop_tables(tx, model, SHADOW)


async def let_previous_go(tx: Transaction, model: ReadModel, rebuild_id: UUID) -> None:
    """Give up rolling back."""
    await _close_gate(tx)
    await _set(tx, rebuild_id, state="done")
    await _drop_tables(tx, model, PREVIOUS)


async def _close_gate(tx: Transaction) -> None:
    """Wait until no event is taking effect, and let none until this transaction ends."""
    await tx.execute(select(func.pg_advisory_xact_lock(_GATE_LOCK)))


async def _exchange(tx: Transaction, model: ReadModel, *, incoming: str, outgoing: str) -> None:
    await tx.execute(text(f"SET LOCAL lock_timeout = {SWAP_LOCK_MS}"))
    await _close_gate(tx)
    if await _shape(tx, model, incoming) != await _shape(tx, model, LIVE):
        raise ShapeChangedError
    await _drop_tables(tx, model, outgoing)
    listed = ", ".join(f'{LIVE}."{name}"' for name in model.names)
    await tx.execute(text(f"LOCK TABLE {listed} IN ACCESS EXCLUSIVE MODE"))
    crash_point("rebuild.swap.locked")
    for name in model.names:
        await tx.execute(text(f'ALTER TABLE {LIVE}."{name}" SET SCHEMA {outgoing}'))
        await tx.execute(text(f'ALTER TABLE {incoming}."{name}" SET SCHEMA {LIVE}'))
    crash_point("rebuild.swap.exchanged")


async def _shape(tx: Transaction, model: ReadModel, schema: str) -> list[tuple[Any, ...]]:
    columns = text("""
        SELECT table_name, ordinal_position, column_name, udt_name, is_nullable FROM information_schema.columns
        WHERE table_schema = :schema AND table_name = ANY(:names) ORDER BY 1, 2
    """)
    rows = await tx.fetch_all(columns, {"schema": schema, "names": model.names})
    return [(row.table_name, row.column_name, row.udt_name, row.is_nullable) for row in rows]


async def _drop_tables(tx: Transaction, model: ReadModel, schema: str) -> None:
    for name in model.names:
        await tx.execute(text(f'DROP TABLE IF EXISTS {schema}."{name}"'))
