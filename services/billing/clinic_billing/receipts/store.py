"""The queries of receipts and of whose they are, each on the open transaction it is given."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
from clinic_shared.database import Transaction
from clinic_shared.encryption.backlog import Kind
from clinic_shared.encryption.ciphers import Place
from sqlalchemy import Row, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_billing.receipts.document import Document
from clinic_billing.receipts.receipt import Receipt, ReceiptStatus
from clinic_billing.receipts.registrar import Company, Registered
from clinic_billing.receipts.tables import fiscal_profile, receipt
from clinic_billing.store import Within
from clinic_billing.tables import invoice

_SEALED = "sealed"
_FISCAL = (
    "fiscal_storage",
    "shift_number",
    "receipt_number",
    "document_number",
    "document_sign",
    "registered_at",
)


async def lease(tx: Transaction, *, limit: int, seconds: float) -> list[Receipt]:
    """Take receipts that are due; whoever dies with them lets go of them when the lease ends."""
    due = (
        select(receipt.c.receipt_id)
        .where(receipt.c.status.in_(("pending", "sent")), receipt.c.next_attempt_at <= func.clock_timestamp())
        .order_by(receipt.c.next_attempt_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = await tx.fetch_all(
        update(receipt)
        .where(receipt.c.receipt_id.in_(due.scalar_subquery()))
        .values(
            attempts=receipt.c.attempts + 1,
            next_attempt_at=func.clock_timestamp() + timedelta(seconds=seconds),
        )
        .returning(receipt)
    )
    return [_receipt(tx, row) for row in rows]


async def find(tx: Transaction, receipt_id: UUID) -> Receipt | None:
    row = await tx.fetch_one(select(receipt).where(receipt.c.receipt_id == receipt_id))
    return None if row is None else _receipt(tx, row)


async def lock(tx: Transaction, receipt_id: UUID) -> Receipt | None:
    mine = select(receipt).where(receipt.c.receipt_id == receipt_id)
    row = await tx.fetch_one(mine.with_for_update())
    return None if row is None else _receipt(tx, row)


async def save(tx: Transaction, changed: Receipt, *, version_before: int, in_seconds: float = 0) -> bool:
    """Save a receipt unless somebody else has moved it; returns whether it was saved."""
    document, registered = changed.document, changed.registered
    values: dict[str, Any] = {
        "version": changed.version,
        "status": changed.status.value,
        "submission": changed.submission,
        "attempts": changed.attempts,
        "reference": changed.reference,
        "last_error": changed.last_error,
        "overdue_at": changed.overdue_at,
        "invoice_id": changed.invoice_id,
        "payment_id": changed.payment_id,
        "patient_id": changed.patient_id,
        "operation": document.operation.value if document else None,
        **stored_document(tx, changed.receipt_id, document.to_json() if document else None),
        "total_minor": document.total_minor if document else None,
        "next_attempt_at": func.clock_timestamp() + timedelta(seconds=in_seconds),
    }
    if registered is not None:
        values |= {name: getattr(registered, name) for name in _FISCAL}
    mine = update(receipt).where(
        receipt.c.receipt_id == changed.receipt_id, receipt.c.version == version_before
    )
    result = await tx.execute(mine.values(values))
    return result.rowcount == 1


async def postpone(tx: Transaction, receipt_id: UUID, error: str, *, in_seconds: float) -> None:
    mine = update(receipt).where(receipt.c.receipt_id == receipt_id, receipt.c.status != "done")
    again = func.clock_timestamp() + timedelta(seconds=in_seconds)
    await tx.execute(mine.values(last_error=error, next_attempt_at=again))


async def list_within(
    tx: Transaction,
    *,
    within: Within,
    status: ReceiptStatus | None,
    payment_id: UUID | None,
    after: UUID | None,
    limit: int,
) -> list[Receipt]:
    """Return receipts in the order of their movements. One without an invoice yet is its network's to see."""
    statement = select(receipt).outerjoin(invoice, invoice.c.invoice_id == receipt.c.invoice_id)
    for condition in (
        within.condition(),
        None if status is None else receipt.c.status == status.value,
        None if payment_id is None else receipt.c.payment_id == payment_id,
        None if after is None else receipt.c.receipt_id > after,
    ):
        if condition is not None:
            statement = statement.where(condition)
    rows = await tx.fetch_all(statement.order_by(receipt.c.receipt_id).limit(limit))
    return [_receipt(tx, row) for row in rows]


async def find_company(tx: Transaction, legal_entity_id: UUID) -> Company | None:
    mine = select(fiscal_profile).where(fiscal_profile.c.legal_entity_id == legal_entity_id)
    row = await tx.fetch_one(mine)
    if row is None:
        return None
    values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it
    del values["legal_entity_id"]
    return Company(**values)


async def keep_company(tx: Transaction, legal_entity_id: UUID, company: Company) -> None:
    values = vars(company)
    await tx.execute(
        upsert(fiscal_profile)
        .values(legal_entity_id=legal_entity_id, **values)
        .on_conflict_do_update(index_elements=["legal_entity_id"], set_=values)
    )


async def wake(tx: Transaction, legal_entity_id: UUID) -> None:
    """Let what waited for the legal entity's profile be due now."""
    mine = update(receipt).where(
        receipt.c.legal_entity_id == legal_entity_id,
        or_(receipt.c.status == "pending", receipt.c.status == "sent"),
    )
    await tx.execute(mine.values(next_attempt_at=func.clock_timestamp()))


# Documents are added up where they lie, so what they say of money stays, and the payer's contact is sealed beside it.


def stored_document(tx: Transaction, receipt_id: UUID, document: dict[str, Any] | None) -> dict[str, Any]:
    """Return the columns that hold what a receipt says. Raises KeysUnavailableError."""
    if not tx.keyring.encrypting:
        return {"document": document, "sealed": None, "data_key": None}
    contact = orjson.dumps(document and document["contact"])
    row = tx.keyring.seal_row(_place(tx.service, receipt_id), {_SEALED: contact})
    left = None if document is None else document | {"contact": None}
    return {"document": left, "sealed": row.values[_SEALED], "data_key": row.data_key}


def _opened_document(tx: Transaction, row: Row[Any]) -> dict[str, Any] | None:
    document: dict[str, Any] | None = row.document
    if row.data_key is None or document is None:
        return document
    place = _place(tx.service, row.receipt_id)
    contact = tx.keyring.open_row(place, row.data_key, {_SEALED: row.sealed})[_SEALED]
    return document | {"contact": orjson.loads(contact or b"null")}


def _place(service: str, receipt_id: UUID) -> Place:
    return Place(service, "receipt", str(receipt_id))


CONTACTS = Kind(
    receipt,
    lambda service, row: _place(service, row.receipt_id),
    lambda tx, row: stored_document(tx, row.receipt_id, row.document),
)


def _receipt(tx: Transaction, row: Row[Any]) -> Receipt:
    document = _opened_document(tx, row)
    registered = None
    if row.document_sign is not None:
        fiscal = {name: getattr(row, name) for name in _FISCAL}
        registered = Registered(**fiscal, total_minor=row.total_minor)
    return Receipt(
        receipt_id=row.receipt_id,
        version=row.version,
        status=ReceiptStatus(row.status),
        legal_entity_id=row.legal_entity_id,
        owed_at=row.owed_at,
        submission=row.submission,
        attempts=row.attempts,
        document=None if document is None else Document.from_json(document),
        invoice_id=row.invoice_id,
        payment_id=row.payment_id,
        patient_id=row.patient_id,
        reference=row.reference,
        last_error=row.last_error,
        overdue_at=row.overdue_at,
        registered=registered,
    )
