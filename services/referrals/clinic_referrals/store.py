"""Referrals' queries, each on the open transaction it is given."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.encryption.fields import SEAL_COLUMNS
from sqlalchemy import ColumnElement, Row, insert, select, update

from clinic_referrals.domain import Place, Priority, Referral, ReferralStatus
from clinic_referrals.tables import WORDS, department, patient, practitioner, referral

_PLACES = ("from_centre_id", "from_department_id", "to_centre_id", "to_department_id")


async def find_place(tx: Transaction, department_id: UUID) -> tuple[Place, bool] | None:
    """Return the department's place and whether it is open; None when it isn't known here."""
    row = await tx.fetch_one(select(department).where(department.c.department_id == department_id))
    return None if row is None else (Place(row.department_id, row.centre_id), row.active)


async def works_in(tx: Transaction, practitioner_id: UUID, department_id: UUID) -> bool | None:
    """Return whether the practitioner works in the department; None when they aren't known here."""
    row = await tx.fetch_one(select(practitioner).where(practitioner.c.practitioner_id == practitioner_id))
    return None if row is None else row.active and department_id in row.department_ids


async def is_patient_known(tx: Transaction, patient_id: UUID) -> bool:
    row = await tx.fetch_one(
        select(patient.c.patient_id).where(patient.c.patient_id == patient_id, patient.c.active)
    )
    return row is not None


async def find_referral(tx: Transaction, referral_id: UUID) -> Referral | None:
    row = await tx.fetch_one(select(referral).where(referral.c.referral_id == referral_id))
    return None if row is None else _referral(tx, row)


async def lock_referral(tx: Transaction, referral_id: UUID) -> Referral | None:
    row = await tx.fetch_one(select(referral).where(referral.c.referral_id == referral_id).with_for_update())
    return None if row is None else _referral(tx, row)


async def list_referrals(
    tx: Transaction,
    *,
    limit: int,
    after: UUID | None,
    to_department_id: UUID | None = None,
    from_department_id: UUID | None = None,
    person: Collection[UUID] = (),
    status: ReferralStatus | None = None,
    visible: ColumnElement[bool],
) -> list[Referral]:
    """Return the `visible` ones of the referrals, by id; `person`: of these records of a patient alone."""
    statement = select(referral).where(visible).order_by(referral.c.referral_id).limit(limit)
    if after is not None:
        statement = statement.where(referral.c.referral_id > after)
    if to_department_id is not None:
        statement = statement.where(referral.c.to_department_id == to_department_id)
    if from_department_id is not None:
        statement = statement.where(referral.c.from_department_id == from_department_id)
    if person:
        statement = statement.where(referral.c.patient_id.in_(person))
    if status is not None:
        statement = statement.where(referral.c.status == status.value)
    return [_referral(tx, row) for row in await tx.fetch_all(statement)]


async def add_referral(tx: Transaction, new: Referral) -> None:
    await tx.execute(insert(referral).values(WORDS.stored(tx, _values(new))))


async def save_referral(tx: Transaction, changed: Referral) -> None:
    await tx.execute(
        update(referral)
        .where(referral.c.referral_id == changed.referral_id)
        .values(WORDS.stored(tx, _values(changed)))
    )


def _referral(tx: Transaction, row: Row[Any]) -> Referral:
    values = vars(WORDS.opened(tx, row))
    places = {name: values.pop(name) for name in _PLACES}
    status, priority = ReferralStatus(values.pop("status")), Priority(values.pop("priority"))
    return Referral(
        status=status,
        priority=priority,
        sender=Place(places["from_department_id"], places["from_centre_id"]),
        receiver=Place(places["to_department_id"], places["to_centre_id"]),
        **values,
    )


def _values(value: Referral) -> dict[str, Any]:
    elsewhere = {*_PLACES, *SEAL_COLUMNS}
    plain = {c.name: getattr(value, c.name) for c in referral.columns if c.name not in elsewhere}
    return plain | {
        "status": value.status.value,
        "priority": value.priority.value,
        "from_centre_id": value.sender.centre_id,
        "from_department_id": value.sender.department_id,
        "to_centre_id": value.receiver.centre_id,
        "to_department_id": value.receiver.department_id,
    }
