"""What a message says: the fields that a template may use, and rendering it in a sandbox.

Fields hold time, place, the name of a service, amounts; nothing else about a patient can get into a text.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from jinja2 import StrictUndefined, TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from clinic_notifications.domain import Channel, TemplateInvalidError

FIELDS = (
    "centre", "department", "address", "phone", "service", "date", "time", "number", "amount", "payment_url", "link",
    "login_address", "code",
)  # fmt: skip
NOTHING = "—"
"""WhatsApp refuses empty parameters."""

_MONTHS_RU = (
    "января", "февраля", "марта", "апреля", "мая", "июня",
    "июля", "августа", "сентября", "октября", "ноября", "декабря",
)  # fmt: skip
_MONTHS_EN = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_NO_MINOR_UNITS = {"JPY", "KRW", "VND", "CLP", "ISK"}
_environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)  # plain text


@dataclass(frozen=True, kw_only=True)
class Template:
    """One version of the wording for one purpose, language and channel; of one department, or the network's."""

    template_id: UUID
    code: str
    language: str
    channel: Channel
    department_id: UUID | None
    version: int
    subject: str | None
    body: str
    vendor_name: str | None
    changed_at: datetime


@dataclass(frozen=True, kw_only=True)
class Place:
    """In whose name a message goes out."""

    centre: str | None = None
    address: str | None = None
    phone: str | None = None
    department: str | None = None
    language: str | None = None


@dataclass(frozen=True)
class Rendered:
    subject: str | None
    text: str
    parameters: list[str]
    """The body's fields in their order: what a vendor that keeps the body itself is given."""


def fields_of(facts: Mapping[str, Any], place: Place, language: str) -> dict[str, str]:
    values: dict[str, str | None] = {
        "centre": place.centre,
        "address": place.address,
        "phone": place.phone,
        "department": place.department,
        "service": facts.get("service"),
        "number": facts.get("number"),
        "payment_url": facts.get("payment_url"),
        "link": facts.get("link"),
        "login_address": facts.get("login_address"),
        "code": facts.get("code"),
    }
    if "starts_at" in facts:
        local = datetime.fromisoformat(facts["starts_at"]).astimezone(ZoneInfo(facts["time_zone"]))
        values |= {"date": spell_date(local, language), "time": f"{local:%H:%M}"}
    if "amount_minor" in facts:
        values["amount"] = spell_amount(facts["amount_minor"], facts["currency"], language)
    return {name: _one_line(values.get(name)) for name in FIELDS}


def spell_date(moment: datetime, language: str) -> str:
    months = _MONTHS_RU if language == "ru" else _MONTHS_EN
    return f"{moment.day} {months[moment.month - 1]} {moment.year}"


def spell_amount(amount_minor: int, currency: str, language: str) -> str:
    digits = 0 if currency in _NO_MINOR_UNITS else 2
    text = f"{Decimal(amount_minor).scaleb(-digits):,.{digits}f}"
    if language == "ru":
        text = text.translate({ord(","): " ", ord("."): ","})
    return f"{text} {currency}"


def render(template: Template, fields: Mapping[str, str]) -> Rendered:
    """Raises TemplateInvalidError."""
    subject = None if template.subject is None else _render(template.subject, fields)
    text = _render(template.body, fields)
    return Rendered(subject, text, [fields[name] for name in _names(_parse(template.body))])


def _render(source: str, fields: Mapping[str, str]) -> str:
    parsed = _parse(source)
    _names(parsed)
    try:
        return _environment.from_string(parsed).render(fields)
    except TemplateError:
        raise TemplateInvalidError("A field is not known.", fields=list(FIELDS)) from None


def _parse(source: str) -> nodes.Template:
    try:
        return _environment.parse(source)
    except TemplateError:
        raise TemplateInvalidError("The syntax is not valid.", fields=list(FIELDS)) from None


def _names(parsed: nodes.Template) -> list[str]:
    """Return a template's fields in order. There may be nothing in it but text and fields.

    A vendor that keeps the text itself (WhatsApp) knows no more, and a loop could take any time.
    """
    parts = [part for node in parsed.body for part in getattr(node, "nodes", [node])]
    if any(not isinstance(part, (nodes.TemplateData, nodes.Name)) for part in parts):
        raise TemplateInvalidError("Only text and plain `{{ field }}`, please.", fields=list(FIELDS))
    return [part.name for part in parts if isinstance(part, nodes.Name)]


def _one_line(value: str | None) -> str:
    """WhatsApp refuses parameters with line breaks, tabs or runs of spaces."""
    return re.sub(r"\s+", " ", value).strip() or NOTHING if value else NOTHING
