"""One receipt on its way: pending -> sent -> done, or failed until a person sends or corrects it. Pure."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from clinic_shared.errors import DomainError

from clinic_billing.receipts.document import CORRECTED, Correction, Document
from clinic_billing.receipts.registrar import Failed, Registered

MOST_SUBMISSIONS = 3
"""A register out of paper or with a full storage fails every document: then a person has to look."""


class ReceiptStatus(StrEnum):
    PENDING = "pending"
    SENT = "sent"
    DONE = "done"
    FAILED = "failed"


class ReceiptNotFailedError(DomainError):
    """Only a receipt that the registrar won't register any more is sent again or corrected by a person."""

    slug = "receipt-not-failed"
    title = "The receipt is registered or on its way"
    fix = "Read its status. While it is `pending` or `sent` it is taken care of."


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """`receipt_id` is its movement's. Without a document nobody has looked at the movement yet."""

    receipt_id: UUID
    version: int
    status: ReceiptStatus
    legal_entity_id: UUID
    owed_at: datetime
    submission: int
    attempts: int
    document: Document | None = None
    invoice_id: UUID | None = None
    payment_id: UUID | None = None
    patient_id: UUID | None = None
    reference: str | None = None
    last_error: str | None = None
    overdue_at: datetime | None = None
    registered: Registered | None = None

    @property
    def external_id(self) -> str:
        return f"{self.receipt_id}-{self.submission}"

    def sent(self, reference: str) -> "Receipt":
        return self._moved(status=ReceiptStatus.SENT, reference=reference, attempts=0, last_error=None)

    def done(self, registered: Registered) -> "Receipt":
        return self._moved(status=ReceiptStatus.DONE, registered=registered, last_error=None)

    def refused(self, code: str) -> "Receipt":
        return self._moved(status=ReceiptStatus.FAILED, last_error=code)

    def not_registered(self, failed: Failed) -> "Receipt":
        """The registrar has said that it never will be, so it may be submitted anew."""
        if self.submission >= MOST_SUBMISSIONS:
            return self.refused(failed.code)
        return self._submitted_anew(last_error=failed.code)

    def again(self, correction: Correction | None = None) -> "Receipt":
        """A person lets a failed one be sent once more, as it was or as a correction.

        Raises ReceiptNotFailedError.
        """
        if self.status is not ReceiptStatus.FAILED or self.document is None:
            raise ReceiptNotFailedError
        document = self.document
        if correction is not None:
            operation = CORRECTED.get(document.operation, document.operation)
            document = replace(document, operation=operation, correction=correction)
        return self._submitted_anew(document=document)

    def _submitted_anew(self, **changes: object) -> "Receipt":
        return self._moved(
            status=ReceiptStatus.PENDING,
            submission=self.submission + 1,
            reference=None,
            attempts=0,
            **changes,
        )

    def _moved(self, **changes: object) -> "Receipt":
        return replace(self, version=self.version + 1, **changes)  # type: ignore[arg-type]  # names of its own fields
