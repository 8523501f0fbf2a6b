"""What an operator asks of every service: ledger, what waits, dead letters. Never a patient's data.

Everything here is audited, reading included.
"""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal, Self, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field, model_validator
from sqlalchemy import Row, func, select, text

from clinic_shared import dead_letters, intake_worker
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.events import outbox
from clinic_shared.ids import uuid7_time
from clinic_shared.ledger import Ledger
from clinic_shared.paging import Page, PageQuery, page_of
from clinic_shared.routing import ClinicRouter, CurrentRuntime, Tx
from clinic_shared.timers import timer_table

READ = "ops.read"
REDRIVE = "ops.redrive"

router = ClinicRouter(prefix="/v1/ops", tags=["operations"])

Document = TypeVar("Document", bound=BaseModel)
State = Literal["held", "parked", "discarded"]


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
    money_sum_minor: int | None = Field(description="Sum of all money movements: zero, or something is wrong")


class DeadLetter(BaseModel):
    """A message that could not take effect, without its body."""

    id: int
    event_id: UUID
    type: str
    queue: str
    state: State
    cause: str
    error: str
    attempt: int
    next_attempt_at: datetime | None
    first_failed_at: datetime
    last_failed_at: datetime
    decided_by: UUID | None
    decided_at: datetime | None
    reason: str | None


class DeadLetterGroup(BaseModel):
    state: State
    cause: str
    type: str
    error: str
    count: int
    oldest_at: datetime


class DeadLetters(Page[DeadLetter]):
    groups: list[DeadLetterGroup]


class DeadLetterSelection(BaseModel):
    """Given ones, or all of a cause."""

    ids: list[int] = Field(default_factory=list, max_length=1000)
    cause: str | None = Field(default=None, min_length=1, max_length=64)

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.ids and self.cause is None:
            raise ValueError("name ids or a cause: nothing named would mean everything")
        return self


class DiscardRequest(BaseModel):
    reason: str = Field(min_length=3, max_length=500)


class Decided(BaseModel):
    count: int


class DryRun(BaseModel):
    would_succeed: bool
    error: str | None


@router.get("/summary", permission=READ)
async def read_ops_summary(tx: Tx) -> Summary:
    """What waits: outbox, held and parked messages, timers, intake."""
    _audit_read(tx, "Summary")
    held = await dead_letters.count_by_state(tx)
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
async def read_ledger(tx: Tx, runtime: CurrentRuntime) -> LedgerDocument:
    """Every answered message by what became of it, and the sum of the money ledger."""
    _audit_read(tx, "Ledger")
    ledger = Ledger.of(runtime)
    lines = []
    for interface, count in ledger.interfaces.items():
        dispositions = await count(tx)
        lines.append(LedgerLine(interface=interface, balanced=dispositions.balanced, **asdict(dispositions)))
    money = await ledger.money(tx) if ledger.money else None
    return LedgerDocument(service=tx.service, interfaces=lines, money_sum_minor=money)


@router.get("/dead-letters", permission=READ)
async def list_dead_letters(
    tx: Tx,
    page: PageQuery,
    cause: Annotated[str | None, Query(max_length=64)] = None,
    state: State | None = None,
) -> DeadLetters:
    """Held, parked and discarded messages, and all that wait grouped by cause."""
    _audit_read(tx, "DeadLetter")
    after = page.after_key(int)
    rows = await dead_letters.listed(
        tx,
        dead_letters.selection(cause=cause, state=state),
        limit=page.limit + 1,
        after_id=after[0] if after else 0,
    )
    found = page_of([_of(DeadLetter, row) for row in rows], page, key=lambda letter: letter.id)
    groups = [DeadLetterGroup(**asdict(group)) for group in await dead_letters.groups(tx)]
    return DeadLetters(items=found.items, next_cursor=found.next_cursor, groups=groups)


@router.get("/dead-letters/{dead_letter_id}", permission=READ)
async def show_dead_letter(tx: Tx, dead_letter_id: int) -> DeadLetter:
    _audit_read(tx, "DeadLetter", dead_letter_id)
    return _of(DeadLetter, await dead_letters.shown(tx, dead_letter_id))


@router.post("/dead-letters/{dead_letter_id}/dry-run", permission=REDRIVE, transactional=False)
async def try_dead_letter(runtime: CurrentRuntime, dead_letter_id: int) -> DryRun:
    """Handle a message and roll it back, to see whether it would succeed now."""
    error = await dead_letters.dry_run(runtime, dead_letter_id)
    return DryRun(would_succeed=error is None, error=error)


@router.post("/dead-letters/{dead_letter_id}/redrive", permission=REDRIVE)
async def redrive_dead_letter(tx: Tx, dead_letter_id: int) -> Decided:
    """Handle a message again, with its origin unchanged."""
    await dead_letters.shown(tx, dead_letter_id)
    return Decided(count=await dead_letters.redrive(tx, dead_letters.selection(ids=[dead_letter_id])))


@router.post("/dead-letters/redrive", permission=REDRIVE)
async def redrive_dead_letters(tx: Tx, body: DeadLetterSelection) -> Decided:
    """Handle a selection again, or all parked messages of a cause, in order per key."""
    where = dead_letters.selection(ids=body.ids, cause=body.cause, state=None if body.ids else "parked")
    return Decided(count=await dead_letters.redrive(tx, where))


@router.post("/dead-letters/{dead_letter_id}/discard", permission=REDRIVE)
async def discard_dead_letter(tx: Tx, dead_letter_id: int, body: DiscardRequest) -> Decided:
    """Let a message be. It stays visible, with the reason."""
    await dead_letters.shown(tx, dead_letter_id)
    where = dead_letters.selection(ids=[dead_letter_id])
    return Decided(count=await dead_letters.discard(tx, where, reason=body.reason))


@router.post("/intake/{item_id}/redrive", permission=REDRIVE)
async def redrive_intake_item(tx: Tx, item_id: UUID) -> Decided:
    """Process a parked item of an inbound interface again."""
    await intake_worker.redrive_item(tx, item_id)
    tx.audit(AuditEntry(action=Action.EXECUTE, resource_type="IntakeItem", resource_id=item_id))
    return Decided(count=1)


def _of(model: type[Document], row: Row[Any]) -> Document:
    return model(**{name: row._mapping[name] for name in model.model_fields})  # noqa: SLF001  # public, by its documentation


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
