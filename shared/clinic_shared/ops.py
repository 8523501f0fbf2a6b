"""What an operator asks of every service: the ledger, what waits. Never a patient's data.

Everything here is audited, reading included.
"""

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field
from sqlalchemy import func, select, text

from clinic_shared import intake_worker
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.dead_letters.listing import count_by_state
from clinic_shared.events import outbox
from clinic_shared.ids import uuid7_time
from clinic_shared.inbound import accounts
from clinic_shared.inbound.models import LedgerDay
from clinic_shared.inbound.registry import Inbound
from clinic_shared.ledger import Ledger
from clinic_shared.routing import ClinicRouter, CurrentRuntime, Tx
from clinic_shared.service import Runtime
from clinic_shared.timers import timer_table

READ = "ops.read"
REDRIVE = "ops.redrive"
RECENT_DAYS = 7
MOST_DAYS = 92

router = ClinicRouter(prefix="/v1/ops", tags=["operations"])


class Summary(BaseModel):
    """What waits in this service."""

    service: str
    outbox_pending: int
    outbox_oldest_at: datetime | None
    audit_records_pending: int
    held: int
    parked: int
    timers_overdue: int
    intake_waiting: int
    intake_parked: int


class LedgerLine(BaseModel):
    """One interface: `answered` is the sum of the rest when `balanced`."""

    interface: str
    answered: int
    applied: int
    parked: int
    rejected: int
    superseded: int
    duplicate: int
    discarded: int
    in_flight: int
    balanced: bool


class LedgerDocument(BaseModel):
    service: str
    interfaces: list[LedgerLine]
    days: list[LedgerDay] = Field(description="the same by partner and day, the latest days")
    money_sum_minor: int | None = Field(description="Sum of all money movements: zero, or something is wrong")


class Redriven(BaseModel):
    count: int


@router.get("/summary", permission=READ)
async def read_ops_summary(tx: Tx) -> Summary:
    """What waits: outbox, held and parked messages, timers, intake."""
    _audit_read(tx, "Summary")
    held = await count_by_state(tx)
    intake = await intake_worker.waiting(tx)
    oldest = await _scalar(tx, select(outbox.c.event_id).order_by(outbox.c.id).limit(1))
    overdue = select(func.count()).where(
        timer_table.c.state == "pending", timer_table.c.next_attempt_at < tx.now
    )
    return Summary(
        service=tx.service,
        outbox_pending=await _scalar(tx, select(func.count()).select_from(outbox)),
        outbox_oldest_at=uuid7_time(oldest) if oldest else None,
        audit_records_pending=await _scalar(tx, text("SELECT count(*) FROM audit_outbox")),
        held=held.get("held", 0),
        parked=held.get("parked", 0),
        timers_overdue=await _scalar(tx, overdue),
        intake_waiting=intake.get("received", 0),
        intake_parked=intake.get("parked", 0),
    )


@router.get("/ledger", permission=READ)
async def read_ledger(
    tx: Tx, runtime: CurrentRuntime, days: Annotated[int, Query(ge=0, le=MOST_DAYS)] = RECENT_DAYS
) -> LedgerDocument:
    """Every answered message by what became of it, in all and by partner and day; the sum of all money."""
    _audit_read(tx, "Ledger")
    ledger = Ledger.of(runtime)
    lines = []
    for interface, count in ledger.interfaces.items():
        dispositions = await count(tx)
        lines.append(LedgerLine(interface=interface, balanced=dispositions.balanced, **asdict(dispositions)))
    money = await ledger.money(tx) if ledger.money else None
    recent = await _days(tx, runtime, days) if days else []
    return LedgerDocument(service=tx.service, interfaces=lines, days=recent, money_sum_minor=money)


async def _days(tx: Transaction, runtime: Runtime, days: int) -> list[LedgerDay]:
    since = tx.now - timedelta(days=days - 1)
    return [
        LedgerDay(
            interface=name,
            partner=line.partner,
            day=line.day,
            balanced=line.dispositions.balanced,
            **asdict(line.dispositions),
        )
        for name, interface in Inbound.of(runtime).interfaces.items()
        for line in await accounts.by_day(tx, name, interface, since=since)
    ]


@router.post("/intake/{item_id}/redrive", permission=REDRIVE)
async def redrive_intake_item(tx: Tx, item_id: UUID) -> Redriven:
    """Process a parked item of an inbound interface again."""
    await intake_worker.redrive_item(tx, item_id)
    tx.audit(AuditEntry(action=Action.EXECUTE, resource_type="IntakeItem", resource_id=item_id))
    return Redriven(count=1)


def _audit_read(tx: Transaction, resource: str, resource_id: object = None) -> None:
    tx.audit(
        AuditEntry(
            action=Action.READ,
            resource_type=f"Operations.{resource}",
            resource_id=str(resource_id) if resource_id is not None else None,
        )
    )


async def _scalar(tx: Transaction, statement: Any) -> Any:
    row = await tx.fetch_one(statement)
    return row[0] if row is not None else None
