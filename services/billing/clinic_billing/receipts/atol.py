"""ATOL Online's protocol, version 5 (FFD 1.2). Nothing of it is known elsewhere.

https://atol.online/library: getToken, {group}/{operation}, {group}/report/{uuid}. Sums are numbers of roubles.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import httpx
from pydantic import BaseModel, ValidationError

from clinic_billing.amounts import to_minor, to_text
from clinic_billing.receipts.document import Document, Item, Operation, Tender
from clinic_billing.receipts.registrar import (
    Company,
    Failed,
    Registered,
    RegistrarRefusedError,
    RegistrarUnavailableError,
    Waiting,
)

TIMEOUT_SECONDS = 10.0
TOKEN_SECONDS = 23 * 3600
"""A token lives for 24 hours."""
_ALREADY_THERE = 33
_TOKEN_PROBLEMS = frozenset({10, 11, 12, 13, 14})
_SERVICE = 4  # tag 1212
_PIECE = 0  # tag 2108
_MOSCOW = ZoneInfo("Europe/Moscow")
_PATHS = {
    Operation.SELL: "sell",
    Operation.SELL_REFUND: "sell_refund",
    Operation.SELL_CORRECTION: "sell_correction",
    Operation.SELL_REFUND_CORRECTION: "sell_refund_correction",
}
_PAYMENT_TYPES = {Tender.CASH: 0, Tender.ELECTRONIC: 1, Tender.PREPAID: 2, Tender.CREDIT: 3}
_LONGEST_NAME = 128


class Problem(BaseModel):
    code: int
    text: str = ""


class Answer(BaseModel):
    uuid: str | None = None
    status: str | None = None
    error: Problem | None = None
    payload: dict[str, Any] | None = None


class Payload(BaseModel):
    total: Decimal
    fn_number: str
    shift_number: int
    receipt_datetime: str
    fiscal_receipt_number: int
    fiscal_document_number: int
    fiscal_document_attribute: int


class AtolOnline:
    """A registrar in the cloud: it takes a document and tells later what became of it."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._login, self._password = "", ""
        self._token: tuple[str, float] | None = None

    @classmethod
    def connect(cls, *, base_url: str, login: str, password: str) -> "AtolOnline":
        atol = cls(httpx.AsyncClient(base_url=base_url, timeout=TIMEOUT_SECONDS))
        atol.use(login=login, password=password)
        return atol

    def use(self, *, login: str, password: str) -> None:
        self._login, self._password, self._token = login, password, None

    async def aclose(self) -> None:
        await self._http.aclose()

    async def register(
        self, document: Document, *, external_id: str, company: Company, issued_at: datetime
    ) -> str:
        body = request_of(document, external_id=external_id, company=company, issued_at=issued_at)
        path = f"/possystem/v5/{company.group_code}/{_PATHS[document.operation]}"
        answer = await self._ask("POST", path, body)
        if answer.uuid and (answer.error is None or answer.error.code == _ALREADY_THERE):
            return answer.uuid
        if answer.error is None:
            raise RegistrarUnavailableError("no reference")
        raise RegistrarRefusedError(f"atol-{answer.error.code}")

    async def report(
        self, reference: str, *, company: Company, currency: str
    ) -> Waiting | Failed | Registered:
        answer = await self._ask("GET", f"/possystem/v5/{company.group_code}/report/{reference}")
        if answer.status == "done" and answer.payload is not None:
            return _registered(answer.payload, currency)
        if answer.status == "fail" and answer.error is not None:
            return Failed(code=f"atol-{answer.error.code}")
        return Waiting()

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """Raises RegistrarUnavailableError."""
        headers = {"Token": await self._valid_token()}
        answer = await self._send(method, path, body, headers)
        if answer.error is not None and answer.error.code in _TOKEN_PROBLEMS:
            self._token = None
            raise RegistrarUnavailableError("token")
        return answer

    async def _valid_token(self) -> str:
        if self._token is None or self._token[1] < time.monotonic():
            credentials = {"login": self._login, "pass": self._password}
            document = await self._json("POST", "/possystem/v5/getToken", credentials, {})
            token = document.get("token")
            if not isinstance(token, str):
                raise RegistrarUnavailableError("no token")
            self._token = (token, time.monotonic() + TOKEN_SECONDS)
        return self._token[0]

    async def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> Answer:
        try:
            return Answer.model_validate(await self._json(method, path, body, headers))
        except ValidationError as error:
            raise RegistrarUnavailableError("unreadable") from error

    async def _json(
        self, method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> dict[str, Any]:
        try:
            answer = await self._http.request(method, path, json=body, headers=headers)
            document = answer.json()
        except (httpx.TransportError, ValueError) as error:
            raise RegistrarUnavailableError(type(error).__name__) from error
        if answer.is_server_error or not isinstance(document, dict):
            raise RegistrarUnavailableError(str(answer.status_code))
        return document


def request_of(
    document: Document, *, external_id: str, company: Company, issued_at: datetime
) -> dict[str, Any]:
    about: dict[str, Any] = {
        "company": {
            "email": company.email,
            "sno": company.taxation,
            "inn": company.inn,
            "payment_address": company.payment_address,
        },
        "items": [_item(item, document.currency) for item in document.items],
        "payments": [
            {"type": _PAYMENT_TYPES[tender], "sum": _number(amount, document.currency)}
            for tender, amount in document.payments.items()
        ],
        "total": _number(document.total_minor, document.currency),
    }
    contact = document.contact or company.email
    about["client"] = {"email" if "@" in contact else "phone": contact}
    if document.correction is not None:
        base = datetime.fromisoformat(document.correction.base_on)
        about["correction_info"] = {
            "type": "self",
            "base_date": f"{base:%d.%m.%Y}",
            "base_number": document.correction.base_number,
        }
    return {
        "external_id": external_id,
        "timestamp": f"{issued_at.astimezone(_MOSCOW):%d.%m.%Y %H:%M:%S}",
        "correction" if document.correction is not None else "receipt": about,
    }


def _item(item: Item, currency: str) -> dict[str, Any]:
    return {
        "name": item.name[:_LONGEST_NAME],
        "price": _number(item.price_minor, currency),
        "quantity": item.quantity,
        "measure": _PIECE,
        "sum": _number(item.sum_minor, currency),
        "payment_method": item.method.value,
        "payment_object": _SERVICE,
        # Medical services are exempt (Tax Code, article 149).
        "vat": {"type": "none"},
    }


def _number(amount_minor: int, currency: str) -> float:
    # JSON has no decimals. A float of two decimals writes itself as exactly these, up to 2**53 kopecks.
    return float(to_text(amount_minor, currency))


def _registered(payload: Mapping[str, Any], currency: str) -> Registered:
    """Raises RegistrarUnavailableError."""
    try:
        told = Payload.model_validate(payload)
        total_minor = to_minor(str(told.total), currency)
    except ValueError as error:
        raise RegistrarUnavailableError("unreadable") from error
    return Registered(
        fiscal_storage=told.fn_number,
        shift_number=told.shift_number,
        receipt_number=told.fiscal_receipt_number,
        document_number=str(told.fiscal_document_number),
        document_sign=str(told.fiscal_document_attribute),
        registered_at=_instant(told.receipt_datetime),
        total_minor=total_minor,
    )


def _instant(text: str) -> datetime | None:
    try:
        local = datetime.strptime(text, "%d.%m.%Y %H:%M:%S").replace(tzinfo=_MOSCOW)
    except ValueError:
        return None
    return local.astimezone(UTC)
