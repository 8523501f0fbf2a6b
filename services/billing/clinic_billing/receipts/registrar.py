"""What billing asks of whoever registers receipts for it: a cash register in the cloud or on the counter.

`external_id` makes a registration idempotent: repeated, it answers the reference that it gave first. A new
one may be used only after the registrar has said that the one before it failed.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from clinic_billing.receipts.document import Document


class RegistrarRefusedError(Exception):
    """The registrar won't register this, now or later. `code` is one of its own."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class RegistrarUnavailableError(Exception):
    """No answer, or one that may be another next time. The document may have been registered."""


@dataclass(frozen=True, kw_only=True)
class Company:
    """Whose receipts they are, as the tax office knows it. `group_code` is the registrar's for its registers."""

    inn: str
    taxation: str
    email: str
    payment_address: str
    group_code: str


FICTITIOUS_COMPANY = Company(
    inn="0000000000",
    taxation="osn",
    email="receipts@clinic.example",
    payment_address="https://clinic.example",
    group_code="fictitious-group",
)


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Not registered yet."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Not registered, and this submission never will be."""

    code: str


@dataclass(frozen=True, kw_only=True)
class Registered:
    """Tags 1041 (storage), 1038 (shift), 1042, 1040 (document), 1077 (sign), and when."""

    fiscal_storage: str
    shift_number: int
    receipt_number: int
    document_number: str
    document_sign: str
    registered_at: datetime | None
    total_minor: int


class Registrar(Protocol):
    async def register(
        self, document: Document, *, external_id: str, company: Company, issued_at: datetime
    ) -> str:
        """Return the registrar's reference. Raises RegistrarRefusedError, RegistrarUnavailableError."""

    async def report(
        self, reference: str, *, company: Company, currency: str
    ) -> Waiting | Failed | Registered:
        """Raises RegistrarUnavailableError."""

    async def aclose(self) -> None: ...
