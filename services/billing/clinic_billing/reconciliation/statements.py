"""Reading a bank's statement: CAMT.053 (ISO 20022) or CSV with a header line. Pure.

CSV columns: reference, date (ISO 8601), amount (signed decimal), currency, counterparty, purpose; in any order,
separated by commas or semicolons, UTF-8 with or without a byte-order mark, or Windows-1251.
"""

import csv
import io
from dataclasses import dataclass
from datetime import date
from typing import Literal
from xml.etree import ElementTree as ET

from clinic_shared.errors import InvalidRequestError

from clinic_billing.amounts import to_minor

MOST_LINES = 20_000
_COLUMNS = ("reference", "date", "amount", "currency", "counterparty", "purpose")
Format = Literal["csv", "camt.053"]


class UnreadableStatementError(InvalidRequestError):
    """The file isn't a statement in one of the formats that are understood."""

    slug = "unreadable-statement"
    title = "The bank's statement can't be read"
    fix = "Send CAMT.053 XML, or CSV with the columns that the description names; `line` is where it fails."


@dataclass(frozen=True, kw_only=True)
class BankLine:
    """`amount_minor` is positive for money that came."""

    reference: str
    booked_on: date
    amount_minor: int
    currency: str
    counterparty: str
    purpose: str


def read(body: bytes) -> tuple[Format, list[BankLine]]:
    """Raises UnreadableStatementError."""
    if body.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<"):
        return "camt.053", _bounded(_read_camt(body))
    return "csv", _bounded(_read_csv(_text(body)))


def _bounded(lines: list[BankLine]) -> list[BankLine]:
    if not lines or len(lines) > MOST_LINES:
        raise UnreadableStatementError(f"A statement has 1 to {MOST_LINES} lines.")
    return lines


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return body.decode("cp1251", errors="replace")


def _read_csv(text: str) -> list[BankLine]:
    header = text.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(text), delimiter=";" if header.count(";") > header.count(",") else ",")
    missing = set(_COLUMNS) - {(name or "").strip().lower() for name in rows.fieldnames or ()}
    if missing:
        raise UnreadableStatementError("Columns are missing.", line=1, missing=sorted(missing))
    return [_csv_line(number, row) for number, row in enumerate(rows, start=2)]


def _csv_line(number: int, row: dict[str, str]) -> BankLine:
    values = {(name or "").strip().lower(): str(value or "").strip() for name, value in row.items()}
    try:
        return BankLine(
            reference=_required(values["reference"]),
            booked_on=date.fromisoformat(values["date"]),
            amount_minor=to_minor(values["amount"], values["currency"]),
            currency=_required(values["currency"]),
            counterparty=values["counterparty"],
            purpose=values["purpose"],
        )
    except ValueError as error:
        raise UnreadableStatementError(line=number) from error


class _WithoutDocumentType(ET.TreeBuilder):
    """Entities could be nested into gigabytes; no bank sends any, in whatever encoding."""

    def doctype(self, *_: str | None) -> None:
        raise UnreadableStatementError("A document type is not accepted.")


def _read_camt(body: bytes) -> list[BankLine]:
    try:
        # Without entities there is nothing to expand.
        root = ET.fromstring(body, ET.XMLParser(target=_WithoutDocumentType()))  # noqa: S314
    except ET.ParseError as error:
        raise UnreadableStatementError(line=error.position[0]) from error
    entries = root.findall(".//{*}Stmt/{*}Ntry")
    return [_camt_line(number, entry) for number, entry in enumerate(entries, start=1)]


def _camt_line(number: int, entry: ET.Element) -> BankLine:
    debit = _first(entry, "{*}CdtDbtInd") == "DBIT"
    party = "{*}Cdtr" if debit else "{*}Dbtr"
    try:
        minor, currency = _camt_amount(entry.find("{*}Amt"))
        return BankLine(
            reference=_required(
                _first(entry, "{*}AcctSvcrRef", "{*}NtryRef", ".//{*}TxDtls//{*}AcctSvcrRef")
            ),
            booked_on=date.fromisoformat(_first(entry, "{*}BookgDt/{*}Dt", "{*}BookgDt/{*}DtTm")[:10]),
            amount_minor=-minor if debit else minor,
            currency=currency,
            counterparty=_first(entry, f".//{{*}}RltdPties/{party}/{{*}}Nm", f".//{party}//{{*}}Nm"),
            purpose=_first(entry, ".//{*}RmtInf/{*}Ustrd", "{*}AddtlNtryInf"),
        )
    except ValueError as error:
        raise UnreadableStatementError(line=number) from error


def _camt_amount(amount: ET.Element | None) -> tuple[int, str]:
    """Raises ValueError."""
    if amount is None:
        raise ValueError("no amount")
    currency = _required(amount.get("Ccy", ""))
    return to_minor(_required(amount.text or ""), currency), currency


def _first(entry: ET.Element, *paths: str) -> str:
    for path in paths:
        found = entry.findtext(path)
        if found:
            return found.strip()
    return ""


def _required(text: str) -> str:
    if not text:
        raise ValueError("empty")
    return text
