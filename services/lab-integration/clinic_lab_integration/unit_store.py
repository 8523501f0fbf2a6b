"""The queries of patient groups and incidents: what became of each part of each message, and who decides."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from clinic_shared.bulk import InsertRows, UpdateRows, excluded
from clinic_shared.database import Transaction
from clinic_shared.ids import uuid7
from clinic_shared.intake import intake_table
from clinic_shared.intake_order import by_turn
from sqlalchemy import Row, delete, insert, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_lab_integration.domain import Disposition, Identifier, MessageId
from clinic_lab_integration.protection import WANTED, by_form, stands_in
from clinic_lab_integration.tables import incident, lab_unit, unit_report, wanted_key

UnitPlace = tuple[UUID, int]
"""The id of a message and the index of a group in it."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One patient group of a message, and what became of it."""

    message_id: MessageId
    group_index: int
    partner_id: UUID
    disposition: Disposition
    reason: str | None
    patient_id: UUID | None
    received_at: datetime
    interface: str = "hl7"
    decided_by: UUID | None = None
    decision_reason: str | None = None
    note: str | None = None
    noted_by: UUID | None = None
    noted_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class UnitReport:
    report_index: int
    disposition: Disposition
    reason: str | None = None
    result_id: UUID | None = None
    result_version: int | None = None
    filed_at: datetime | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a unit: `reports` are those of its reports that were decided just now."""

    disposition: Disposition
    reason: str | None = None
    patient_id: UUID | None = None
    reports: tuple[UnitReport, ...] = ()


# -- units

LINES = "lines"
"""Under which a transaction knows groups that `closing` has read."""

_ADD_UNIT = InsertRows(
    lab_unit,
    named={
        *("message_id", "group_index", "partner_id", "received_at", "interface"),
        *("decision_reason", "disposition", "reason", "patient_id", "settled_at"),
    },
)
_SETTLE_UNIT = UpdateRows(lab_unit, ("disposition", "reason", "patient_id", "settled_at"))
_SAVE_REPORT = InsertRows(
    unit_report,
    replacing=excluded(("disposition", "reason", "result_id", "result_version", "filed_at")),
)


def add_unit(tx: Transaction, unit: Unit, outcome: Outcome) -> None:
    row = {
        "message_id": unit.message_id,
        "group_index": unit.group_index,
        "partner_id": unit.partner_id,
        "received_at": unit.received_at,
        "interface": unit.interface,
        "decision_reason": unit.decision_reason,
    }
    tx.write_later(_ADD_UNIT, row | _outcome_values(tx, outcome))
    save_reports(tx, unit, outcome.reports)


async def lock_unit(tx: Transaction, message_id: UUID, group_index: int) -> Unit | None:
    units = await lock_units(tx, [(message_id, group_index)])
    return units[0] if units else None


async def lock_units(tx: Transaction, places: Collection[UnitPlace]) -> list[Unit]:
    """Lock groups, in one order whoever asks for several; those that don't exist are left out."""
    place = tuple_(lab_unit.c.message_id, lab_unit.c.group_index)
    rows = await tx.fetch_all(
        select(lab_unit)
        .where(place.in_(places))
        .order_by(lab_unit.c.message_id, lab_unit.c.group_index)
        .with_for_update()
    )
    return [_unit(row) for row in rows]


async def remove_rejected(tx: Transaction, message_id: UUID) -> None:
    """Take away what became of a message that was refused, and is taken after all."""
    mine = lab_unit.c.message_id == message_id
    await tx.execute(delete(lab_unit).where(mine, lab_unit.c.disposition == Disposition.REJECTED.value))


def settle_unit(tx: Transaction, unit: Unit, outcome: Outcome) -> None:
    """Store what became of a group, whatever was read ahead of it."""
    tx.known.pop(LINES, None)
    write_outcome(tx, unit, outcome)


def write_outcome(tx: Transaction, unit: Unit, outcome: Outcome) -> None:
    place = {"message_id": unit.message_id, "group_index": unit.group_index}
    tx.write_later(_SETTLE_UNIT, place | _outcome_values(tx, outcome))
    save_reports(tx, unit, outcome.reports)


def _outcome_values(tx: Transaction, outcome: Outcome) -> dict[str, Any]:
    return {
        "disposition": outcome.disposition.value,
        "reason": None if outcome.reason is None else str(outcome.reason),
        "patient_id": outcome.patient_id,
        "settled_at": None if outcome.disposition is Disposition.IN_FLIGHT else tx.now,
    }


async def note_decision(
    tx: Transaction, unit: Unit, *, decided_by: UUID | None, reason: str | None = None
) -> None:
    await _change(tx, unit, decided_by=decided_by, decision_reason=reason)


async def note(tx: Transaction, unit: Unit, text: str, *, noted_by: UUID) -> None:
    await _change(tx, unit, note=text, noted_by=noted_by, noted_at=tx.now)


async def _change(tx: Transaction, unit: Unit, **values: Any) -> None:
    await tx.execute(
        update(lab_unit)
        .where(lab_unit.c.message_id == unit.message_id, lab_unit.c.group_index == unit.group_index)
        .values(**values)
    )


async def list_units(tx: Transaction, message_ids: Sequence[UUID]) -> list[Unit]:
    rows = await tx.fetch_all(
        select(lab_unit)
        .where(lab_unit.c.message_id.in_(message_ids))
        .order_by(lab_unit.c.message_id, lab_unit.c.group_index)
    )
    return [_unit(row) for row in rows]


async def list_parked(
    tx: Transaction, *, after: tuple[UUID, int] | None, limit: int, partner_id: UUID | None = None
) -> list[Unit]:
    """Return the groups that wait for a person, oldest first."""
    place = tuple_(lab_unit.c.message_id, lab_unit.c.group_index)
    statement = (
        select(lab_unit)
        .where(lab_unit.c.disposition == Disposition.PARKED.value)
        .order_by(lab_unit.c.message_id, lab_unit.c.group_index)
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(place > after)
    if partner_id is not None:
        statement = statement.where(lab_unit.c.partner_id == partner_id)
    return [_unit(row) for row in await tx.fetch_all(statement)]


# -- what unmatched groups wait for


async def want(tx: Transaction, unit: Unit, keys: Iterable[Identifier]) -> None:
    rows = [
        WANTED.stored(tx, {"message_id": unit.message_id, "group_index": unit.group_index, **asdict(key)})
        for key in dict.fromkeys(keys)
    ]
    if rows:
        await tx.execute(upsert(wanted_key).on_conflict_do_nothing(), rows)


async def want_nothing(tx: Transaction, unit: Unit) -> None:
    await tx.execute(
        delete(wanted_key).where(
            wanted_key.c.message_id == unit.message_id, wanted_key.c.group_index == unit.group_index
        )
    )


async def lock_units_wanting(tx: Transaction, keys: Sequence[Identifier]) -> list[Unit]:
    """Lock the parked groups that wait for one of these, in the order in which they came."""
    if not keys:
        return []
    place = tuple_(lab_unit.c.message_id, lab_unit.c.group_index)
    waiting = select(wanted_key.c.message_id, wanted_key.c.group_index).where(
        stands_in(wanted_key, by_form(tx, keys))
    )
    rows = await tx.fetch_all(
        select(lab_unit)
        .join(intake_table, intake_table.c.id == lab_unit.c.message_id)
        .where(place.in_(waiting), lab_unit.c.disposition == Disposition.PARKED.value)
        .order_by(*by_turn(intake_table), lab_unit.c.group_index)
        .with_for_update(of=lab_unit)
    )
    return [_unit(row) for row in rows]


# -- the reports of a unit


def save_reports(tx: Transaction, unit: Unit, reports: Iterable[UnitReport]) -> None:
    place = {"message_id": unit.message_id, "group_index": unit.group_index}
    for report in reports:
        tx.write_later(_SAVE_REPORT, {**place, **vars(report), "disposition": report.disposition.value})


async def list_reports(tx: Transaction, unit: Unit) -> list[UnitReport]:
    return (await reports_of(tx, [unit.message_id])).get((unit.message_id, unit.group_index), [])


async def reports_of(tx: Transaction, message_ids: Collection[UUID]) -> dict[UnitPlace, list[UnitReport]]:
    rows = await tx.fetch_all(
        select(unit_report)
        .where(unit_report.c.message_id.in_(message_ids))
        .order_by(unit_report.c.message_id, unit_report.c.group_index, unit_report.c.report_index)
    )
    found: dict[UnitPlace, list[UnitReport]] = {}
    for row in rows:
        report = UnitReport(
            report_index=row.report_index,
            disposition=Disposition(row.disposition),
            reason=row.reason,
            result_id=row.result_id,
            result_version=row.result_version,
            filed_at=row.filed_at,
        )
        found.setdefault((row.message_id, row.group_index), []).append(report)
    return found


# -- incidents


async def add_incident(
    tx: Transaction, *, kind: str, partner_id: UUID, message_id: UUID, earlier_message_id: UUID
) -> None:
    await tx.execute(
        insert(incident).values(
            incident_id=uuid7(),
            kind=kind,
            state="open",
            partner_id=partner_id,
            message_id=message_id,
            earlier_message_id=earlier_message_id,
            raised_at=tx.now,
        )
    )


async def list_incidents(
    tx: Transaction, *, state: str | None, after: UUID | None, limit: int
) -> Sequence[Row[Any]]:
    statement = select(incident).order_by(incident.c.incident_id).limit(limit)
    if state is not None:
        statement = statement.where(incident.c.state == state)
    if after is not None:
        statement = statement.where(incident.c.incident_id > after)
    return await tx.fetch_all(statement)


async def change_incident(tx: Transaction, incident_id: UUID, **values: Any) -> Row[Any] | None:
    """Change an open incident; None when there is none."""
    return await tx.fetch_one(
        update(incident)
        .where(incident.c.incident_id == incident_id, incident.c.state == "open")
        .values(**values)
        .returning(incident)
    )


# -- rows to values


def _unit(row: Row[Any]) -> Unit:
    return Unit(
        message_id=MessageId(row.message_id),
        group_index=row.group_index,
        partner_id=row.partner_id,
        interface=row.interface,
        disposition=Disposition(row.disposition),
        reason=row.reason,
        patient_id=row.patient_id,
        received_at=row.received_at,
        decided_by=row.decided_by,
        decision_reason=row.decision_reason,
        note=row.note,
        noted_by=row.noted_by,
        noted_at=row.noted_at,
    )
