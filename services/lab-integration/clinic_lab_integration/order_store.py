"""The queries of orders on their way out: where they go, and how far each has come."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.ids import uuid7
from sqlalchemy import Row, exists, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_lab_integration import protection, store
from clinic_lab_integration.candidates import Person
from clinic_lab_integration.domain import Identifier
from clinic_lab_integration.order_messages import Action, Destination, Format
from clinic_lab_integration.tables import (
    order_destination,
    order_transmission,
    patient,
)

_CONTROL_ID_BYTES = 10
_MOST_IDENTIFIERS = 20


@dataclass(frozen=True, kw_only=True)
class Transmission:
    """Something that a laboratory is told of an order, until it has answered."""

    transmission_id: UUID
    lab_order_id: UUID
    partner_id: UUID
    action: Action
    state: str
    control_id: str
    attempts: int
    requested_at: datetime
    next_attempt_at: datetime
    settled_at: datetime | None
    answer_code: str | None
    last_error: str | None


async def find_destination(tx: Transaction, partner_id: UUID, *, lock: bool = False) -> Destination | None:
    statement = select(order_destination).where(order_destination.c.partner_id == partner_id)
    row = await tx.fetch_one(statement.with_for_update() if lock else statement)
    if row is None:
        return None
    values = {name: getattr(row, name) for name in Destination.__dataclass_fields__}
    return Destination(**{**values, "format": Format(row.format)})


async def save_destination(tx: Transaction, changed: Destination) -> None:
    values = {**vars(changed), "format": changed.format.value, "changed_at": tx.now}
    await tx.execute(
        upsert(order_destination)
        .values(values)
        .on_conflict_do_update(index_elements=["partner_id"], set_=values)
    )


async def add(tx: Transaction, *, lab_order_id: UUID, partner_id: UUID, action: Action) -> None:
    await tx.execute(
        insert(order_transmission).values(
            transmission_id=uuid7(),
            lab_order_id=lab_order_id,
            partner_id=partner_id,
            action=action.value,
            state="pending",
            control_id=secrets.token_hex(_CONTROL_ID_BYTES).upper(),
            requested_at=tx.now,
            next_attempt_at=func.clock_timestamp(),
        )
    )


async def of_orders(tx: Transaction, lab_order_ids: Sequence[UUID]) -> dict[UUID, list[Transmission]]:
    rows = await tx.fetch_all(
        select(order_transmission)
        .where(order_transmission.c.lab_order_id.in_(lab_order_ids))
        .order_by(order_transmission.c.transmission_id)
    )
    found: dict[UUID, list[Transmission]] = {}
    for row in rows:
        found.setdefault(row.lab_order_id, []).append(_transmission(row))
    return found


async def withdraw_unsent(tx: Transaction, lab_order_id: UUID) -> bool:
    """Take back what no attempt was made of; returns whether it was."""
    row = await tx.fetch_one(
        update(order_transmission)
        .where(
            order_transmission.c.lab_order_id == lab_order_id,
            order_transmission.c.action == Action.NEW.value,
            order_transmission.c.state == "pending",
            order_transmission.c.attempts == 0,
        )
        .values(state="withdrawn", settled_at=tx.now)
        .returning(order_transmission.c.transmission_id)
    )
    return row is not None


async def lease(tx: Transaction, *, most: int, lease: timedelta) -> list[Transmission]:
    """Take what is due; a cancellation waits until the order itself was answered."""
    earlier = order_transmission.alias("earlier")
    unanswered = exists().where(
        earlier.c.lab_order_id == order_transmission.c.lab_order_id,
        earlier.c.state == "pending",
        earlier.c.transmission_id < order_transmission.c.transmission_id,
    )
    due = (
        select(order_transmission.c.transmission_id)
        .where(
            order_transmission.c.state == "pending",
            order_transmission.c.next_attempt_at <= func.clock_timestamp(),
            ~unanswered,
        )
        .order_by(order_transmission.c.next_attempt_at)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    rows = await tx.fetch_all(
        update(order_transmission)
        .where(order_transmission.c.transmission_id.in_(due.scalar_subquery()))
        .values(attempts=order_transmission.c.attempts + 1, next_attempt_at=func.clock_timestamp() + lease)
        .returning(order_transmission)
    )
    return [_transmission(row) for row in rows]


async def change(tx: Transaction, transmission_id: UUID, **values: Any) -> Transmission | None:
    """Change what is still pending; None when it isn't."""
    row = await tx.fetch_one(
        update(order_transmission)
        .where(
            order_transmission.c.transmission_id == transmission_id, order_transmission.c.state == "pending"
        )
        .values(**values)
        .returning(order_transmission)
    )
    return None if row is None else _transmission(row)


async def send_again(tx: Transaction, lab_order_id: UUID) -> bool:
    """Let what the laboratory refused be sent once more; returns whether there was something."""
    result = await tx.execute(
        update(order_transmission)
        .where(order_transmission.c.lab_order_id == lab_order_id, order_transmission.c.state == "refused")
        .values(state="pending", settled_at=None, next_attempt_at=func.clock_timestamp())
    )
    return bool(result.rowcount)


async def count_pending(tx: Transaction) -> Row[Any]:
    row = await tx.fetch_one(
        select(
            func.count().label("pending"), func.min(order_transmission.c.requested_at).label("oldest_at")
        ).where(order_transmission.c.state == "pending")
    )
    assert row is not None  # noqa: S101  # an aggregate has a row
    return row


async def who(tx: Transaction, patient_id: UUID) -> tuple[Person, tuple[Identifier, ...]]:
    """What laboratories are told of a patient."""
    row = await tx.fetch_one(select(patient).where(patient.c.patient_id == patient_id))
    identifiers = await store.identifiers_of(tx, [patient_id])
    person = Person() if row is None else protection.person_of(tx, row)
    return person, tuple(identifiers[:_MOST_IDENTIFIERS])


def _transmission(row: Row[Any]) -> Transmission:
    values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it
    return Transmission(**{**values, "action": Action(row.action)})
