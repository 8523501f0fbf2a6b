"""What an operator asks of event logs and inboxes: what happened, what caused what, who has applied it.

Never with a payload. Everything here is audited, reading included.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import Depends, Query
from pydantic import BaseModel
from sqlalchemy import ColumnElement, Row, Uuid, and_, cast, func, literal, or_, select, union_all

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import InvalidRequestError
from clinic_shared.events import event_log
from clinic_shared.held import held_table
from clinic_shared.ids import uuid7, uuid7_floor, uuid7_time
from clinic_shared.inbox import inbox
from clinic_shared.intake_store import intake_table
from clinic_shared.paging import Page, PageQuery, page_of
from clinic_shared.routing import ClinicRouter, Tx

READ = "ops.read"
RECENT = timedelta(days=2)
MAX_IDS = 50

router = ClinicRouter(prefix="/v1/ops", tags=["operations"])

Ids = Annotated[list[UUID] | None, Query(max_length=MAX_IDS)]
TraceId = Annotated[str | None, Query(pattern="^[0-9a-f]{32}$")]


class EventEntry(BaseModel):
    """An event without its payload."""

    event_id: UUID
    type: str
    subject: UUID
    aggregate_version: int
    occurred_at: datetime
    recorded_at: datetime
    origin: str
    correlation_id: UUID
    causation_id: UUID | None
    trace_id: str | None

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        parts = (row.traceparent or "").split("-")
        shown = {name: value for name, value in row._mapping.items() if name != "traceparent"}  # noqa: SLF001  # public, by its documentation
        return cls(**shown, trace_id=parts[1] if len(parts) == 4 else None)  # noqa: PLR2004  # W3C Trace Context


_SHOWN = [event_log.c[name] for name in EventEntry.model_fields if name != "trace_id"] + [
    event_log.c.traceparent
]


class Delivery(BaseModel):
    """What became of another service's event here; `cause` is why it hasn't taken effect."""

    event_id: UUID
    disposition: Literal["applied", "held", "parked", "discarded", "superseded"]
    at: datetime
    dead_letter_id: int | None
    cause: str | None


@dataclass(frozen=True)
class Wanted:
    """Which events: those that fit any of what is given."""

    ids: Mapping[str, list[UUID] | None]
    trace: str | None

    def condition(self) -> ColumnElement[bool]:
        """Raises InvalidRequestError when nothing is asked for."""
        conditions = list(self._conditions())
        if not conditions:
            raise InvalidRequestError("Name a subject, an event, a correlation, a patient or a trace.")
        return or_(*conditions)

    def _conditions(self) -> Iterator[ColumnElement[bool]]:
        columns = {
            "subject": event_log.c.subject,
            "event": event_log.c.event_id,
            "correlation": event_log.c.correlation_id,
            "patient": event_log.c.patient_id,
        }
        for name, column in columns.items():
            if ids := self.ids[name]:
                yield column.in_(ids)
        if received := self.ids["received"]:
            correlation = cast(intake_table.c.attributes["correlation_id"].astext, Uuid)
            yield event_log.c.correlation_id.in_(select(correlation).where(intake_table.c.id.in_(received)))
        if self.trace:
            # A journey without a name of its own has the trace's id; other traces aren't worth an index.
            yield event_log.c.correlation_id == UUID(self.trace)
            recent = uuid7_floor(uuid7_time(uuid7()) - RECENT)
            continued = event_log.c.traceparent.startswith(f"00-{self.trace}-")
            yield and_(event_log.c.event_id >= recent, continued)

    def told(self) -> dict[str, str]:
        asked = {name: ",".join(map(str, ids)) for name, ids in self.ids.items() if ids}
        return asked | ({"trace": self.trace} if self.trace else {})


async def _wanted(
    subject: Ids = None,
    event: Ids = None,
    correlation: Ids = None,
    patient: Ids = None,
    received: Ids = None,
    trace: TraceId = None,
) -> Wanted:
    ids = {
        "subject": subject,
        "event": event,
        "correlation": correlation,
        "patient": patient,
        "received": received,
    }
    return Wanted(ids, trace)


@router.get("/events", permission=READ)
async def list_events(
    tx: Tx, wanted: Annotated[Wanted, Depends(_wanted)], page: PageQuery
) -> Page[EventEntry]:
    """What this service published, oldest first, without payloads: about a subject or a patient, in a
    journey (`correlation`) or a trace, or because of something that was accepted (`received`).
    """
    condition = wanted.condition()
    _audit(tx, "Event", wanted.told())
    statement = select(*_SHOWN).where(condition).order_by(event_log.c.event_id)
    if page.after is not None:
        statement = statement.where(event_log.c.event_id > page.after)
    rows = await tx.fetch_all(statement.limit(page.limit + 1))
    return page_of([EventEntry.of(row) for row in rows], page, key=lambda entry: entry.event_id)


@router.get("/deliveries", permission=READ)
async def list_deliveries(
    tx: Tx, event: Annotated[list[UUID], Query(min_length=1, max_length=MAX_IDS)]
) -> Page[Delivery]:
    """What became here of events that other services published. One that isn't listed hasn't arrived."""
    _audit(tx, "Delivery", {"event": ",".join(map(str, event))})
    applied = select(
        inbox.c.event_id,
        literal("applied").label("disposition"),
        inbox.c.processed_at.label("at"),
        literal(None, held_table.c.id.type).label("dead_letter_id"),
        literal(None, held_table.c.cause.type).label("cause"),
    ).where(inbox.c.consumer == tx.service, inbox.c.event_id.in_(event))
    kept = select(
        held_table.c.event_id,
        held_table.c.state,
        func.coalesce(held_table.c.decided_at, held_table.c.last_failed_at),
        held_table.c.id,
        held_table.c.error,
    ).where(held_table.c.event_id.in_(event))
    rows = await tx.fetch_all(union_all(applied, kept))
    entries = [Delivery.model_validate(row, from_attributes=True) for row in rows]
    return Page[Delivery](items=sorted(entries, key=lambda entry: entry.at), next_cursor=None)


def _audit(tx: Transaction, resource: str, asked: dict[str, str]) -> None:
    tx.audit(AuditEntry(action=Action.READ, resource_type=f"Operations.{resource}", details=asked))
