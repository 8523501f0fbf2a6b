"""What came in and what became of it: messages with their groups, as people and senders see them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import ConcealedError, NotFoundError
from clinic_shared.intake import answer_of, attributes_of, body_of, intake_table
from clinic_shared.principal import Principal
from sqlalchemy import Row, Select, select

from clinic_lab_integration import stored, unit_store, worklist
from clinic_lab_integration.domain import Disposition, MessageId
from clinic_lab_integration.hl7 import PatientResult
from clinic_lab_integration.messages import INTERFACES, MessageNote
from clinic_lab_integration.partners import SEND
from clinic_lab_integration.unit_store import Unit, UnitReport

READ = "lab-messages.read"


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message that was answered. `raw` is None for whoever may not read it."""

    message_id: UUID
    note: MessageNote
    received_at: datetime
    via: str
    content_type: str
    copies: int
    answer: bytes | None
    raw: bytes | None
    units: tuple[tuple[Unit, tuple[UnitReport, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A parked group with what a person needs to know whose it is."""

    unit: Unit
    control_id: str
    patient: PatientResult


async def list_messages(tx: Transaction, *, after: UUID | None, limit: int) -> list[Message]:
    """Return messages, the newest first."""
    statement = _select(with_raw=False).order_by(intake_table.c.id.desc()).limit(limit)
    if after is not None:
        statement = statement.where(intake_table.c.id < after)
    return await _with_units(tx, await tx.fetch_all(statement))


async def read_message(tx: Transaction, message_id: UUID, *, caller: Principal) -> Message:
    """Return a message; a laboratory sees its own, without the bytes. Raises NotFoundError."""
    may_read = caller.may(READ)
    if not (may_read or caller.may(SEND)):
        raise ConcealedError
    row = await tx.fetch_one(_select(with_raw=may_read).where(intake_table.c.id == message_id))
    if row is None:
        raise NotFoundError
    if not may_read and row.attributes["partner_id"] != str(caller.subject):
        raise ConcealedError
    [message] = await _with_units(tx, [row])
    patients = {unit.patient_id for unit, _ in message.units}
    tx.audit(
        AuditEntry(
            action=Action.READ,
            resource_type="LabMessage",
            resource_id=message_id,
            patient_id=patients.pop() if len(patients) == 1 else None,
            details={"raw": str(may_read).lower()},
        )
    )
    return message


def _select(*, with_raw: bool) -> Select[Any]:
    unwanted = set() if with_raw else {"body"}
    columns = [c for c in intake_table.columns if c.name not in unwanted]
    return select(*columns).where(intake_table.c.interface.in_(INTERFACES))


async def _with_units(tx: Transaction, rows: Sequence[Row[Any]]) -> list[Message]:
    message_ids = [row.id for row in rows]
    units: defaultdict[UUID, list[Unit]] = defaultdict(list)
    for unit in await unit_store.list_units(tx, message_ids):
        units[unit.message_id].append(unit)
    reports = await unit_store.reports_of(tx, message_ids)
    return [_message(tx, row, units[row.id] or _not_yet(row), reports) for row in rows]


def _not_yet(row: Row[Any]) -> list[Unit]:
    """The groups of a message that waits for its worker, or that its worker has given up on."""
    given_up = row.state == "parked"
    return [
        Unit(
            message_id=MessageId(row.id),
            group_index=index,
            partner_id=UUID(row.attributes["partner_id"]),
            disposition=Disposition.PARKED if given_up else Disposition.IN_FLIGHT,
            reason="not-processed" if given_up else None,
            patient_id=None,
            received_at=row.received_at,
        )
        for index in range(row.attributes["groups"])
    ]


def _message(
    tx: Transaction, row: Row[Any], units: list[Unit], reports: dict[tuple[UUID, int], list[UnitReport]]
) -> Message:
    with_raw = hasattr(row, "body")
    return Message(
        message_id=row.id,
        note=MessageNote.read(attributes_of(tx, row) if with_raw else row.attributes),
        received_at=row.received_at,
        via=row.via,
        content_type=row.content_type,
        copies=row.duplicates,
        answer=answer_of(tx, row),
        raw=body_of(tx, row) if with_raw else None,
        units=tuple((u, tuple(reports.get((u.message_id, u.group_index), ()))) for u in units),
    )


async def list_waiting(tx: Transaction, *, after: tuple[UUID, int] | None, limit: int) -> list[Waiting]:
    """Return the groups that wait for a person, oldest first, each with the patient as the lab wrote it."""
    found = []
    for unit in await unit_store.list_parked(tx, after=after, limit=limit):
        row = await worklist.message_row(tx, unit.message_id)
        note = MessageNote.read(row.attributes)
        patient = stored.read(unit.interface, body_of(tx, row), note, None).report.patients[unit.group_index]
        found.append(Waiting(unit=unit, control_id=note.control_id, patient=patient))
    tx.audit(AuditEntry(action=Action.READ, resource_type="LabMessage", details={"list": "unmatched"}))
    return found
