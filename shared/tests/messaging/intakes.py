"""Taking messages in by clocks that are wrong, and noting what takes effect."""

import time
from datetime import UTC, datetime, timedelta

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.context import Context
from clinic_shared.database import Transaction
from clinic_shared.errors import TemporarilyUnavailableError
from clinic_shared.ids import uuid7_at
from clinic_shared.intake import Accepted, Intake, Item, intake_table
from clinic_shared.intake_marks import mark_table
from clinic_shared.service import Runtime
from clinic_shared.testing import eventually
from sqlalchemy import func, select

HOUR = timedelta(hours=1)
LONG = 60


def by_clock(off_by: timedelta, body: bytes) -> Item:
    """Return what a process receives whose clock is wrong."""
    believed = datetime.now(UTC) + off_by
    return Item(
        interface="hl7",
        sender="TESTLAB",
        content_type="application/hl7-v2",
        body=body,
        received_at=believed,
        id=uuid7_at(believed),
    )


def audited(item: Item) -> tuple[Item, AuditEntry]:
    return item, AuditEntry(action=Action.CREATE, resource_type="IntakeItem", resource_id=item.id)


async def accept(runtime: Runtime, off_by: timedelta, body: bytes) -> Accepted:
    """Take a message in as its sender would have it: who is told to come again does."""
    item, audit = audited(by_clock(off_by, body))
    deadline = time.monotonic() + LONG
    while True:
        try:
            return await Intake.of(runtime).accept(item, audit=audit, context=Context())
        except TemporarilyUnavailableError:
            if time.monotonic() > deadline:
                raise


async def put_on_queue(runtime: Runtime, off_by: timedelta, body: bytes, *, since: Runtime) -> None:
    """Take a message in that goes on the queue, once what is durable is older by this process's own reckoning."""

    async def is_later() -> bool:
        async with since.database.transaction() as tx:
            (last,) = await tx.fetch_all(select(func.max(intake_table.c.durable_at).label("at")))
        reckoned = Intake.of(runtime)._time.now()
        return reckoned is not None and reckoned > last.at

    await eventually(is_later, within_seconds=LONG)
    assert (await accept(runtime, off_by, body)).via == "queue"


class Done:
    """Remembers what took effect, in the order in which it did."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, _: Transaction, item: Item) -> None:
        if item.body not in self.bodies:  # else its transaction was tried again
            self.bodies.append(item.body)

    async def are(self, *bodies: bytes) -> None:
        """Wait until exactly these have taken effect, in this order."""
        await eventually(lambda: self.bodies == list(bodies), within_seconds=LONG)


async def marks_of(runtime: Runtime) -> int:
    async with runtime.database.transaction() as tx:
        return len(await tx.fetch_all(select(mark_table.c.mark_id)))
