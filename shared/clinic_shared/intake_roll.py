"""Until when nothing is on the queue without a mark: what each process says that accepts.

One that dies between the broker's confirm and its mark takes with it that it had used the queue. So each says every
few seconds that what it put there until now is marked. While the queue can't be looked at, rows go on up to the moment
until which everybody has said so: who fell silent may have left something.
"""

import asyncio
from datetime import datetime, timedelta

import structlog
from sqlalchemy import (
    Column,
    ColumnElement,
    DateTime,
    Table,
    Uuid,
    delete,
    exists,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import insert

from clinic_shared.database import Database, Transaction
from clinic_shared.events import runtime_metadata
from clinic_shared.failures import is_disconnect
from clinic_shared.ids import uuid7
from clinic_shared.intake_marks import QueueMarks
from clinic_shared.intake_order import by_turn
from clinic_shared.intake_store import intake_table
from clinic_shared.loops import pause
from clinic_shared.telemetry import describe_error

log = structlog.get_logger()

TELL_SECONDS = 5.0
SILENT = timedelta(minutes=1)
"""Who says nothing for so long is no longer waited for, once the queue was empty: it died, and left nothing there."""

process_table = Table(
    "intake_process",
    runtime_metadata,
    Column("process_id", Uuid, primary_key=True),
    Column("told_at", DateTime(timezone=True), nullable=False),
)


class Roll:
    """One process's part in it."""

    def __init__(self, database: Database, marks: QueueMarks) -> None:
        self._database = database
        self._marks = marks
        self._process_id = uuid7()
        self._is_on = False

    async def keep(self, stop: asyncio.Event) -> None:
        """Tell again and again until told to stop."""
        while not stop.is_set():
            try:
                await self.tell()
            except Exception as error:  # noqa: BLE001  # tried again: rows wait for who fell silent
                tell = log.info if is_disconnect(error) else log.warning
                tell("intake_roll_not_kept", **describe_error(error))
            await pause(stop, TELL_SECONDS)

    async def tell(self) -> None:
        async with self._database.transaction() as tx:
            # Before the marks are looked after: what is put on the queue later is not spoken of.
            [row] = await tx.fetch_all(select(func.clock_timestamp().label("now")))
            await self._marks.leave(tx)
            told: dict[str, datetime] = {"told_at": row.now}
            telling = insert(process_table).values(process_id=self._process_id, **told)
            await tx.execute(telling.on_conflict_do_update(index_elements=["process_id"], set_=told))
        self._is_on = True

    async def close(self) -> None:
        """Leave it, unless a mark is still owed."""
        if not self._is_on or self._marks.are_owed:
            return
        try:
            async with self._database.transaction() as tx:
                await tx.execute(delete(process_table).where(process_table.c.process_id == self._process_id))
        except Exception as error:  # noqa: BLE001  # it ends, and is taken for one that died
            log.info("intake_roll_not_left", **describe_error(error))


def is_sure() -> ColumnElement[bool]:
    """Return the condition that nothing unmarked on the queue can be older than a row, or than one that comes before it.

    With nobody on the roll it is true.
    """
    place, _ = by_turn(intake_table)
    other = intake_table.alias("other")
    told = select(func.min(process_table.c.told_at)).scalar_subquery()
    unsure = select(func.min(by_turn(other)[0])).where(
        other.c.state == "received", other.c.durable_at >= told
    )
    return place < func.coalesce(unsure.scalar_subquery(), literal_column("'Infinity'::numeric"))


def somebody_is_silent() -> ColumnElement[bool]:
    return exists(select(process_table.c.process_id).where(_is_silent()))


async def forget_silent(tx: Transaction) -> None:
    """To be called once the queue was empty after they fell silent."""
    await tx.execute(delete(process_table).where(_is_silent()))


def _is_silent() -> ColumnElement[bool]:
    return process_table.c.told_at < func.clock_timestamp() - SILENT
