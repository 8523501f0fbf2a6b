"""Price lists: all prices of a version begin on one day, or none does. And discounts, and who pays for whom."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import DomainError, ReferenceNotYetKnownError
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.problems import constraint_of
from sqlalchemy import Row, func, insert, select
from sqlalchemy.dialects.postgresql import Range
from sqlalchemy.exc import IntegrityError

from clinic_billing import pricing, store
from clinic_billing.domain import PriceKind
from clinic_billing.prices.tables import COVERAGE_ONE_AT_A_TIME, coverage, discount, price_list


class CoveredAlreadyError(DomainError):
    """On some of these days somebody else pays for the patient."""

    slug = "covered-already"
    title = "Another payer pays for the patient on some of these days"
    fix = "Let the coverage begin after the one that is there."


@dataclass(frozen=True, kw_only=True)
class ListedPrice:
    kind: PriceKind
    service_code: str
    amount_minor: int


@dataclass(frozen=True, kw_only=True)
class PublishList:
    centre_id: UUID
    department_id: UUID | None
    payer: str
    currency: str
    valid_from: date
    prices: Sequence[ListedPrice]


async def publish(tx: Transaction, asked: PublishList, *, caller: Principal) -> Row[Any]:
    """Let all prices of a new version begin on its day; what isn't in it stays as it was."""
    await store.hold_prices(tx, asked.centre_id, exclusive=True)
    list_id = uuid7()
    # In one order, whoever else publishes: prices of different centres share no lock.
    for listed in sorted(asked.prices, key=lambda one: (one.kind, one.service_code)):
        command = pricing.SetPrice(
            centre_id=asked.centre_id,
            department_id=asked.department_id,
            payer=asked.payer,
            kind=listed.kind,
            service_code=listed.service_code,
            amount_minor=listed.amount_minor,
            currency=asked.currency,
            valid_from=asked.valid_from,
            list_id=list_id,
        )
        await pricing.set_price(tx, command, caller=caller)
    before = select(func.coalesce(func.max(price_list.c.version), 0) + 1).where(
        price_list.c.centre_id == asked.centre_id,
        price_list.c.department_id.is_not_distinct_from(asked.department_id),
        price_list.c.payer == asked.payer,
    )
    made = insert(price_list).values(
        list_id=list_id,
        centre_id=asked.centre_id,
        department_id=asked.department_id,
        payer=asked.payer,
        version=before.scalar_subquery(),
        valid_from=asked.valid_from,
        prices=len(asked.prices),
        published_at=tx.now,
        published_by=caller.subject,
    )
    row = await tx.fetch_one(made.returning(price_list))
    assert row is not None  # noqa: S101  # RETURNING of what was inserted
    return row


async def list_lists(tx: Transaction, centre_id: UUID | None) -> Sequence[Row[Any]]:
    every = select(price_list).order_by(price_list.c.list_id)
    return await tx.fetch_all(
        every if centre_id is None else every.where(price_list.c.centre_id == centre_id)
    )


@dataclass(frozen=True, kw_only=True)
class SetDiscount:
    """Half-open days. Without a service or a patient it is for all of them."""

    centre_id: UUID
    code: str
    service_code: str | None
    patient_id: UUID | None
    basis_points: int
    valid_from: date
    valid_until: date


async def set_discount(tx: Transaction, asked: SetDiscount, *, caller: Principal) -> Row[Any]:
    caller.require_place(centre_id=asked.centre_id)
    if await store.find_centre(tx, asked.centre_id) is None:
        raise ReferenceNotYetKnownError("The centre is not known here yet.", reference="centre_id")
    made = insert(discount).values(
        discount_id=uuid7(),
        centre_id=asked.centre_id,
        code=asked.code,
        service_code=asked.service_code,
        patient_id=asked.patient_id,
        basis_points=asked.basis_points,
        valid=Range(asked.valid_from, asked.valid_until, bounds="[)"),
        set_at=tx.now,
        set_by=caller.subject,
    )
    row = await tx.fetch_one(made.returning(discount))
    assert row is not None  # noqa: S101  # RETURNING of what was inserted
    _audit(tx, "Discount", row.discount_id, asked.patient_id)
    return row


async def list_discounts(tx: Transaction, centre_id: UUID, *, on: date) -> Sequence[Row[Any]]:
    valid = select(discount).where(discount.c.centre_id == centre_id, discount.c.valid.contains(on))
    return await tx.fetch_all(valid.order_by(discount.c.discount_id))


async def cover(
    tx: Transaction, *, patient_id: UUID, payer: str, valid_from: date, valid_until: date | None
) -> UUID:
    """Let an insurer pay for a patient's visits on some days. Raises CoveredAlreadyError."""
    coverage_id = uuid7()
    try:
        await tx.execute(
            insert(coverage).values(
                coverage_id=coverage_id,
                patient_id=patient_id,
                payer=payer,
                valid=Range(valid_from, valid_until, bounds="[)"),
                set_at=tx.now,
            )
        )
    except IntegrityError as error:
        if constraint_of(error) == COVERAGE_ONE_AT_A_TIME:
            raise CoveredAlreadyError from error
        raise
    _audit(tx, "Coverage", coverage_id, patient_id)
    return coverage_id


def _audit(tx: Transaction, kind: str, subject: UUID, patient_id: UUID | None) -> None:
    tx.audit(AuditEntry(action=Action.CREATE, resource_type=kind, resource_id=subject, patient_id=patient_id))
