"""The queries of payments, refunds and the calls to the provider, each on the open transaction it is given."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.ids import uuid7
from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_billing.domain import Payment, PaymentStatus, Refund, RefundStatus
from clinic_billing.store import Within, column_values
from clinic_billing.tables import PAYER_CONTACT, invoice, payment, provider_call, refund


async def add_payment(tx: Transaction, new: Payment) -> None:
    await tx.execute(insert(payment).values(PAYER_CONTACT.stored(tx, column_values(payment, new))))


async def save_payment(tx: Transaction, changed: Payment) -> None:
    mine = payment.c.payment_id == changed.payment_id
    await tx.execute(
        update(payment).where(mine).values(PAYER_CONTACT.stored(tx, column_values(payment, changed)))
    )


async def find_payment(tx: Transaction, payment_id: UUID) -> Payment | None:
    row = await tx.fetch_one(select(payment).where(payment.c.payment_id == payment_id))
    return None if row is None else _payment(tx, row)


async def lock_payment(tx: Transaction, payment_id: UUID) -> Payment | None:
    mine = select(payment).where(payment.c.payment_id == payment_id)
    row = await tx.fetch_one(mine.with_for_update())
    return None if row is None else _payment(tx, row)


async def find_payment_of(tx: Transaction, provider: str, reference: str) -> Payment | None:
    row = await tx.fetch_one(
        select(payment).where(payment.c.provider == provider, payment.c.provider_reference == reference)
    )
    return None if row is None else _payment(tx, row)


async def find_pending_payment(tx: Transaction, invoice_id: UUID) -> Payment | None:
    row = await tx.fetch_one(
        select(payment).where(
            payment.c.invoice_id == invoice_id, payment.c.status == PaymentStatus.PENDING.value
        )
    )
    return None if row is None else _payment(tx, row)


async def list_payments(
    tx: Transaction, *, within: Within, invoice_id: UUID | None, after: UUID | None, limit: int
) -> list[Payment]:
    statement = select(payment).join(invoice, invoice.c.invoice_id == payment.c.invoice_id)
    for condition in (
        within.condition(),
        None if invoice_id is None else payment.c.invoice_id == invoice_id,
        None if after is None else payment.c.payment_id > after,
    ):
        if condition is not None:
            statement = statement.where(condition)
    return [
        _payment(tx, row) for row in await tx.fetch_all(statement.order_by(payment.c.payment_id).limit(limit))
    ]


async def sum_refunding(tx: Transaction, invoice_id: UUID) -> int:
    """Return what is on its way back of all payments of an invoice."""
    total = select(func.coalesce(func.sum(payment.c.refunding_minor), 0))
    row = await tx.fetch_one(total.where(payment.c.invoice_id == invoice_id))
    return int(row[0]) if row else 0


async def add_refund(tx: Transaction, new: Refund) -> None:
    await tx.execute(insert(refund).values(column_values(refund, new)))


async def save_refund(tx: Transaction, changed: Refund) -> None:
    mine = refund.c.refund_id == changed.refund_id
    await tx.execute(update(refund).where(mine).values(column_values(refund, changed)))


async def set_refund_shift(tx: Transaction, refund_id: UUID, shift_id: UUID) -> None:
    await tx.execute(update(refund).where(refund.c.refund_id == refund_id).values(shift_id=shift_id))


async def find_refund(tx: Transaction, refund_id: UUID) -> Refund | None:
    row = await tx.fetch_one(select(refund).where(refund.c.refund_id == refund_id))
    return None if row is None else _refund(row)


async def find_refund_of(tx: Transaction, provider: str, reference: str) -> Refund | None:
    row = await tx.fetch_one(
        select(refund).where(refund.c.provider == provider, refund.c.provider_reference == reference)
    )
    return None if row is None else _refund(row)


async def list_refunds(tx: Transaction, payment_id: UUID) -> list[Refund]:
    mine = select(refund).where(refund.c.payment_id == payment_id)
    return [_refund(row) for row in await tx.fetch_all(mine.order_by(refund.c.refund_id))]


@dataclass(frozen=True, kw_only=True)
class Call:
    """Something to ask of a provider. `call_id` is the idempotency key there."""

    call_id: UUID
    kind: str
    subject_id: UUID
    attempts: int


async def list_refunds_within(
    tx: Transaction, *, within: Within, status: RefundStatus | None, after: UUID | None, limit: int
) -> list[Refund]:
    statement = select(refund).join(payment, payment.c.payment_id == refund.c.payment_id)
    statement = statement.join(invoice, invoice.c.invoice_id == payment.c.invoice_id)
    for condition in (
        within.condition(),
        None if status is None else refund.c.status == status.value,
        None if after is None else refund.c.refund_id > after,
    ):
        if condition is not None:
            statement = statement.where(condition)
    return [_refund(row) for row in await tx.fetch_all(statement.order_by(refund.c.refund_id).limit(limit))]


async def request_call(tx: Transaction, kind: str, subject_id: UUID) -> None:
    """Note a call to be made after the commit; its id is the idempotency key at the provider.

    Asking again for what was asked for changes nothing.
    """
    await tx.execute(
        upsert(provider_call)
        .values(
            call_id=uuid7(),
            kind=kind,
            subject_id=subject_id,
            state="pending",
            attempts=0,
            requested_at=tx.now,
            # Due by the database's clock, like every lease.
            next_attempt_at=func.clock_timestamp(),
        )
        .on_conflict_do_nothing(constraint="provider_call_once")
    )


async def repeat_call(tx: Transaction, kind: str, subject_id: UUID) -> None:
    """Make a call that was answered once more."""
    mine = update(provider_call).where(provider_call.c.kind == kind, provider_call.c.subject_id == subject_id)
    await tx.execute(
        mine.values(state="pending", attempts=0, requested_at=tx.now, next_attempt_at=func.clock_timestamp())
    )


async def settle_call(tx: Transaction, call: Call, state: str, error: str | None = None) -> None:
    mine = update(provider_call).where(provider_call.c.call_id == call.call_id)
    await tx.execute(mine.values(state=state, last_error=error))


async def find_contact(tx: Transaction, invoice_id: UUID) -> str | None:
    """Return where whoever paid an invoice wants receipts, as it was said last."""
    newest_first = (
        select(payment).where(payment.c.invoice_id == invoice_id).order_by(payment.c.payment_id.desc())
    )
    contacts = (_payment(tx, row).receipt_contact for row in await tx.fetch_all(newest_first))
    return next((contact for contact in contacts if contact is not None), None)


def _payment(tx: Transaction, row: Row[Any]) -> Payment:
    return Payment(**vars(PAYER_CONTACT.opened(tx, row)) | {"status": PaymentStatus(row.status)})


def _refund(row: Row[Any]) -> Refund:
    return Refund(**dict(row._mapping) | {"status": RefundStatus(row.status)})  # noqa: SLF001  # SQLAlchemy's public name for it
