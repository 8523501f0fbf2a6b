"""Accounting documents and the ways they are written, pure: XML in the shape of EnterpriseData, and CSV."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from uuid import UUID
from xml.etree import ElementTree as ET

from clinic_billing.amounts import to_text

NAMESPACE = "http://v8.1c.ru/edi/edi_stnd/EnterpriseData/1.8"
FORMAT_VERSION = "1.8"


class DocumentKind(StrEnum):
    """Our movements, by the names that EnterpriseData has for such documents."""

    SALE = "Документ.РеализацияУслуг"
    PAYMENT = "Документ.ОплатаПлатежнойКартой"
    CASH_IN = "Документ.ПКО"
    REFUND = "Документ.ВозвратПлатежнойКартой"
    CASH_OUT = "Документ.РКО"
    SET_OFF = "Документ.ЗачетАванса"
    WRITE_OFF = "Документ.СписаниеЗадолженности"


@dataclass(frozen=True, kw_only=True)
class DocumentLine:
    service_code: str
    quantity: int
    amount_minor: int


@dataclass(frozen=True, kw_only=True)
class AccountingDocument:
    """`guid` is the movement's. The counterparty is the patient's id: accounting needs no name for it."""

    guid: UUID
    version: int
    kind: DocumentKind
    number: str
    at: datetime
    amount_minor: int
    currency: str
    legal_entity_id: UUID
    patient_id: UUID
    invoice_id: UUID
    lines: tuple[DocumentLine, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Export:
    """One legal entity's documents of one day."""

    legal_entity_id: UUID
    day: date
    documents: Sequence[AccountingDocument]

    def totals(self) -> Mapping[tuple[DocumentKind, str], tuple[int, int]]:
        """Return how many documents there are by kind and currency, and their sum."""
        totals: dict[tuple[DocumentKind, str], tuple[int, int]] = {}
        for document in self.documents:
            key = (document.kind, document.currency)
            count, amount = totals.get(key, (0, 0))
            totals[key] = (count + 1, amount + document.amount_minor)
        return dict(sorted(totals.items()))


def to_xml(export: Export) -> bytes:
    """Write an export as one message. The same documents are always the same bytes."""
    ET.register_namespace("", NAMESPACE)
    message = ET.Element(_name("Message"))
    header = _add(message, "Header")
    _add(header, "Format", FORMAT_VERSION)
    _add(header, "ОрганизацияGUID", str(export.legal_entity_id))
    _add(header, "День", export.day.isoformat())
    totals = _add(header, "Итоги")
    for (kind, currency), (count, amount) in export.totals().items():
        attributes = {"Вид": kind.value, "Количество": str(count), "Валюта": currency}
        ET.SubElement(totals, _name("Итог"), attributes).text = to_text(amount, currency)
    body = _add(message, "Body")
    for document in export.documents:
        _write(body, document)
    written: bytes = ET.tostring(message, encoding="utf-8", xml_declaration=True)
    return written


def _write(body: ET.Element, document: AccountingDocument) -> None:
    written = ET.SubElement(body, _name(document.kind.value), {"Версия": str(document.version)})
    keys = _add(written, "КлючевыеСвойства")
    _add(keys, "Ссылка", str(document.guid))
    _add(keys, "Дата", document.at.isoformat())
    _add(keys, "Номер", document.number)
    _add(keys, "Организация", str(document.legal_entity_id))
    _add(written, "Контрагент", str(document.patient_id))
    _add(written, "ДокументРасчетов", str(document.invoice_id))
    _add(written, "Сумма", to_text(document.amount_minor, document.currency))
    _add(written, "Валюта", document.currency)
    if document.lines:
        _write_lines(_add(written, "Услуги"), document)


def _write_lines(services: ET.Element, document: AccountingDocument) -> None:
    for line in document.lines:
        row = _add(services, "Строка")
        _add(row, "Номенклатура", line.service_code)
        _add(row, "Количество", str(line.quantity))
        _add(row, "Сумма", to_text(line.amount_minor, document.currency))
        _add(row, "СтавкаНДС", "БезНДС")


def _add(parent: ET.Element, name: str, text: str | None = None) -> ET.Element:
    child = ET.SubElement(parent, _name(name))
    child.text = text
    return child


def _name(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"


def to_csv(documents: Iterable[AccountingDocument]) -> str:
    """Write documents one a line; amounts with all decimals of their currency."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(
        ("guid", "version", "kind", "number", "at", "amount", "currency", "patient_id", "invoice_id")
    )
    for one in documents:
        writer.writerow(
            (
                one.guid,
                one.version,
                one.kind.name.lower(),
                _safe(one.number),
                one.at.isoformat(),
                to_text(one.amount_minor, one.currency),
                one.currency,
                one.patient_id,
                one.invoice_id,
            )
        )
    return out.getvalue()


def _safe(text: str) -> str:
    """A spreadsheet would take these for formulas."""
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text
