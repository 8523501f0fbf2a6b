"""The queries of partners, orders and what they refer to, each on the open transaction it is given."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from clinic_shared.database import Transaction
from sqlalchemy import ColumnElement, Row, Select, delete, func, insert, select, text, true, update
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_lab_integration.connection import Connection
from clinic_lab_integration.domain import (
    Identifier,
    KnownOrder,
    LabOrderId,
    OrderedTest,
    OrderStatus,
)
from clinic_lab_integration.hl7 import ResultStatus
from clinic_lab_integration.protection import NUMBERS, by_form, opened_number, stands_in
from clinic_lab_integration.tables import (
    appointment,
    department,
    lab_order,
    lab_result,
    lab_unit,
    partner,
    partner_configuration,
    patient,
    patient_identifier,
)

CRITICAL_ACKNOWLEDGE_SECONDS = 3600

_MATCHING_LOCK = 0x1AB_0001
_PATIENT_LOCK = 0x1AB_0002
_LOCK_IN_ORDER = text(
    "SELECT pg_advisory_xact_lock(:lock, hashtext(key)) FROM unnest(CAST(:keys AS text[])) AS key"
)

# -- locks, always taken in this order: matching, units by id, patients by id


async def lock_matching(tx: Transaction, *, alone: bool) -> None:
    """Keep "nobody has this number" true until commit.

    Whoever parks a group as unmatched holds it alone, whoever brings a patient or an order shares it:
    else a patient registered in the same instant and the group would miss each other for ever.
    """
    take = func.pg_advisory_xact_lock if alone else func.pg_advisory_xact_lock_shared
    await tx.execute(select(take(_MATCHING_LOCK)))


async def lock_patients(tx: Transaction, patient_ids: Iterable[UUID]) -> None:
    """One at a time decides what a patient's next versions are."""
    held: set[UUID] = tx.known.setdefault(_PATIENT_LOCK, set())
    wanted = sorted(set(patient_ids) - held)
    if wanted:
        await tx.execute(_LOCK_IN_ORDER, {"lock": _PATIENT_LOCK, "keys": list(map(str, wanted))})
        held.update(wanted)


# -- partners


@dataclass(frozen=True, kw_only=True)
class Partner:
    """A laboratory: what identity says of it, and how the clinic has configured it."""

    partner_id: UUID
    client_id: str
    name: str
    active: bool
    secret_digests: tuple[str, ...] = field(repr=False)
    version: int
    enabled: bool
    time_zone: str | None
    default_charset: str | None
    identifier_authorities: dict[str, str]
    default_department_id: UUID | None
    critical_acknowledge_seconds: int
    connection: Connection


@dataclass(frozen=True, kw_only=True)
class PartnerActivity:
    """What a laboratory has sent, counted by patient group; `day` counts those of the last 24 hours.

    `oldest_in_flight_at` is when what has waited longest for the chart came.
    """

    last_message_id: UUID | None
    last_received_at: datetime | None
    dispositions: dict[str, int]
    day: dict[str, int]
    oldest_in_flight_at: datetime | None

    @property
    def error_rate(self) -> float | None:
        """How much of the last day was refused or waits for a person."""
        wrong = self.day.get("rejected", 0) + self.day.get("parked", 0)
        every = sum(self.day.values())
        return wrong / every if every else None


def _partners() -> Select[Any]:
    configured = partner_configuration.c
    return select(
        partner.c.partner_id,
        partner.c.client_id,
        partner.c.name,
        partner.c.active,
        partner.c.secret_digests,
        func.coalesce(configured.version, 0).label("version"),
        func.coalesce(configured.enabled, true()).label("enabled"),
        configured.time_zone,
        configured.default_charset,
        configured.identifier_authorities,
        configured.default_department_id,
        func.coalesce(configured.critical_acknowledge_seconds, CRITICAL_ACKNOWLEDGE_SECONDS).label(
            "critical_acknowledge_seconds"
        ),
        configured.connection,
    ).outerjoin(partner_configuration, configured.partner_id == partner.c.partner_id)


async def list_partners(
    tx: Transaction, *, after: UUID | None = None, limit: int | None = None
) -> list[Partner]:
    statement = _partners().order_by(partner.c.partner_id).limit(limit)
    if after is not None:
        statement = statement.where(partner.c.partner_id > after)
    return [_partner(row) for row in await tx.fetch_all(statement)]


async def find_partner(tx: Transaction, partner_id: UUID, *, lock: bool = False) -> Partner | None:
    statement = _partners().where(partner.c.partner_id == partner_id)
    if lock:
        statement = statement.with_for_update(of=partner)
    row = await tx.fetch_one(statement)
    return None if row is None else _partner(row)


async def save_configuration(tx: Transaction, configured: Partner) -> None:
    values = {
        "partner_id": configured.partner_id,
        "version": configured.version,
        "enabled": configured.enabled,
        "time_zone": configured.time_zone,
        "default_charset": configured.default_charset,
        "identifier_authorities": configured.identifier_authorities,
        "default_department_id": configured.default_department_id,
        "critical_acknowledge_seconds": configured.critical_acknowledge_seconds,
        "connection": configured.connection.document(),
        "changed_at": tx.now,
    }
    await tx.execute(
        upsert(partner_configuration)
        .values(values)
        .on_conflict_do_update(index_elements=["partner_id"], set_=values)
    )


async def find_activity(tx: Transaction, partner_id: UUID) -> PartnerActivity:
    last = await tx.fetch_one(
        select(lab_unit.c.message_id, lab_unit.c.received_at)
        .where(lab_unit.c.partner_id == partner_id)
        .order_by(lab_unit.c.message_id.desc())
        .limit(1)
    )
    oldest = await tx.fetch_one(
        select(func.min(lab_unit.c.received_at).label("at")).where(
            lab_unit.c.partner_id == partner_id, lab_unit.c.disposition == "in-flight"
        )
    )
    return PartnerActivity(
        last_message_id=last.message_id if last else None,
        last_received_at=last.received_at if last else None,
        dispositions=await _count_units(tx, partner_id),
        day=await _count_units(tx, partner_id, since=tx.now - timedelta(days=1)),
        oldest_in_flight_at=oldest.at if oldest else None,
    )


async def _count_units(tx: Transaction, partner_id: UUID, *, since: datetime | None = None) -> dict[str, int]:
    statement = (
        select(lab_unit.c.disposition, func.count().label("units"))
        .where(lab_unit.c.partner_id == partner_id)
        .group_by(lab_unit.c.disposition)
    )
    if since is not None:
        statement = statement.where(lab_unit.c.received_at >= since)
    return {row.disposition: row.units for row in await tx.fetch_all(statement)}


# -- what orders and matching need of others


async def find_department(tx: Transaction, department_id: UUID) -> Row[Any] | None:
    return await tx.fetch_one(select(department).where(department.c.department_id == department_id))


async def find_appointment(tx: Transaction, appointment_id: UUID) -> Row[Any] | None:
    return await tx.fetch_one(select(appointment).where(appointment.c.appointment_id == appointment_id))


async def is_patient_known(tx: Transaction, patient_id: UUID) -> bool:
    row = await tx.fetch_one(
        select(patient.c.patient_id).where(patient.c.patient_id == patient_id, patient.c.active)
    )
    return row is not None


async def replace_identifiers(tx: Transaction, patient_id: UUID, identifiers: Sequence[Identifier]) -> None:
    await tx.execute(delete(patient_identifier).where(patient_identifier.c.patient_id == patient_id))
    if identifiers:
        await tx.execute(
            insert(patient_identifier),
            [NUMBERS.stored(tx, {"patient_id": patient_id, **asdict(i)}) for i in dict.fromkeys(identifiers)],
        )


async def identifiers_of(tx: Transaction, patient_ids: Collection[UUID]) -> list[Identifier]:
    rows = await tx.fetch_all(
        select(patient_identifier).where(patient_identifier.c.patient_id.in_(patient_ids))
    )
    found = [opened_number(tx, row) for row in rows]
    return sorted(found, key=lambda one: (one.authority, one.value))


async def owners_of(tx: Transaction, identifiers: Collection[Identifier]) -> dict[Identifier, set[UUID]]:
    """The patients who have each of these identifiers and whose record is in use."""
    owners: dict[Identifier, set[UUID]] = {}
    if not identifiers:
        return owners
    stored = by_form(tx, identifiers)
    rows = await tx.fetch_all(
        select(patient_identifier.c.authority, patient_identifier.c.value, patient.c.patient_id)
        .join(patient_identifier, patient_identifier.c.patient_id == patient.c.patient_id)
        .where(stands_in(patient_identifier, stored), patient.c.active)
    )
    for row in rows:
        owners.setdefault(stored[row.authority, row.value], set()).add(row.patient_id)
    return owners


# -- orders


@dataclass(frozen=True, kw_only=True)
class LabOrder(KnownOrder):
    version: int
    status: OrderStatus
    appointment_id: UUID | None
    encounter_id: UUID | None
    referral_id: UUID | None
    priority: str
    tests: tuple[OrderedTest, ...]
    clinical_note: str | None
    placed_at: datetime
    cancelled_at: datetime | None = None
    cancelled_by: UUID | None = None
    cancellation_reason: str | None = None


async def add_order(tx: Transaction, order: LabOrder) -> None:
    values = {c.name: getattr(order, c.name) for c in lab_order.columns}
    values |= {"status": order.status.value, "tests": [asdict(t) for t in order.tests]}
    await tx.execute(insert(lab_order).values(values))


async def find_order(tx: Transaction, lab_order_id: UUID, *, lock: bool = False) -> LabOrder | None:
    statement = select(lab_order).where(lab_order.c.lab_order_id == lab_order_id)
    row = await tx.fetch_one(statement.with_for_update() if lock else statement)
    return None if row is None else _order(row)


async def list_orders(
    tx: Transaction,
    *,
    person: Collection[UUID],
    visible: ColumnElement[bool],
    after: UUID | None,
    limit: int,
) -> list[LabOrder]:
    """Return the `visible` ones of the orders, by id; `person`: of these records of a patient alone."""
    statement = select(lab_order).where(visible).order_by(lab_order.c.lab_order_id).limit(limit)
    if after is not None:
        statement = statement.where(lab_order.c.lab_order_id > after)
    if person:
        statement = statement.where(lab_order.c.patient_id.in_(person))
    return [_order(row) for row in await tx.fetch_all(statement)]


async def orders_with(tx: Transaction, placer_order_numbers: Iterable[str]) -> list[LabOrder]:
    """Our orders among these numbers, compared as written and whole."""
    numbers = sorted(set(placer_order_numbers))
    if not numbers:
        return []
    rows = await tx.fetch_all(select(lab_order).where(lab_order.c.placer_order_number.in_(numbers)))
    return [_order(row) for row in rows]


async def results_of_order(tx: Transaction, lab_order_id: UUID) -> dict[UUID, ResultStatus]:
    rows = await tx.fetch_all(
        select(lab_result.c.result_id, lab_result.c.status).where(lab_result.c.lab_order_id == lab_order_id)
    )
    return {row.result_id: ResultStatus(row.status) for row in rows}


async def save_order_status(tx: Transaction, lab_order_id: LabOrderId, status: OrderStatus) -> None:
    await tx.execute(
        update(lab_order)
        .where(
            lab_order.c.lab_order_id == lab_order_id,
            lab_order.c.status.not_in([status.value, OrderStatus.CANCELLED.value]),
        )
        .values(status=status.value, version=lab_order.c.version + 1)
    )


async def save_cancellation(tx: Transaction, order: LabOrder) -> None:
    changed = ("version", "cancelled_at", "cancelled_by", "cancellation_reason")
    await tx.execute(
        update(lab_order)
        .where(lab_order.c.lab_order_id == order.lab_order_id)
        .values(status=order.status.value, **{name: getattr(order, name) for name in changed})
    )


# -- rows to values


def _partner(row: Row[Any]) -> Partner:
    values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it
    values["secret_digests"] = tuple(row.secret_digests)
    values["identifier_authorities"] = row.identifier_authorities or {}
    values["connection"] = Connection.read(row.connection)
    return Partner(**values)


def _order(row: Row[Any]) -> LabOrder:
    values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it
    values["status"] = OrderStatus(row.status)
    values["tests"] = tuple(OrderedTest(**test) for test in row.tests)
    return LabOrder(**values)
