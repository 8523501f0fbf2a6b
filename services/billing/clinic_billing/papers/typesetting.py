"""What stands on an invoice and on an act, and how it is set."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from clinic_billing.amounts import to_text
from clinic_billing.domain import Invoice

# Data comes in as JSON and is only ever shown as text: nothing that somebody wrote is markup here.
_TEMPLATE = """
#let paper = json(bytes(sys.inputs.paper))
#set page(paper: "a4", margin: 20mm)
#set text(font: "Libertinus Serif", size: 11pt)
#text(size: 9pt)[#paper.seller]
#v(6mm)
#text(size: 16pt, weight: "bold")[#paper.title]
#v(4mm)
#table(columns: (auto, 1fr), stroke: none, inset: (x: 0pt, y: 2pt), column-gutter: 6mm,
  ..paper.facts.map(fact => (strong(fact.at(0)), text(fact.at(1)))).flatten())
#v(4mm)
#table(columns: (auto, 1fr, auto, auto, auto), stroke: 0.4pt, align: (right, left, right, right, right),
  table.header(..paper.header.map(strong)),
  ..paper.rows.flatten())
#align(right)[
  #table(columns: (auto, auto), stroke: none, align: right, inset: (x: 4pt, y: 2pt),
    ..paper.sums.map(sum => (text(sum.at(0)), strong(sum.at(1)))).flatten())
]
#if paper.signatures.len() > 0 [
  #v(14mm)
  #grid(columns: (1fr, 1fr), column-gutter: 20mm,
    ..paper.signatures.map(name => [#line(length: 100%, stroke: 0.4pt) #text(size: 9pt)[#name]]))
]
"""


class Paper(StrEnum):
    INVOICE = "invoice"
    ACT = "act"


@dataclass(frozen=True, kw_only=True)
class Printed:
    """An invoice with what isn't in it: the names of its seller and of what was sold."""

    invoice: Invoice
    seller: str
    names: Mapping[str, str]


def typeset(paper: Paper, printed: Printed) -> bytes:
    """Return a paper as a PDF. Takes some hundred milliseconds."""
    import typst  # noqa: PLC0415  # 30 MB that only this needs

    document = typst.compile(_TEMPLATE.encode(), sys_inputs={"paper": json.dumps(shown(paper, printed))})
    if not isinstance(document, bytes):  # more than one file comes out of other formats only
        raise TypeError(type(document).__name__)
    return document


def shown(paper: Paper, printed: Printed) -> dict[str, object]:
    """Return everything that stands on a paper, as text."""
    invoice, is_act = printed.invoice, paper is Paper.ACT
    title = f"Act of rendered services {invoice.number}" if is_act else f"Invoice {invoice.number}"
    payer = "the patient" if invoice.payer == "patient" else invoice.payer
    facts = [
        ["Date", invoice.issued_at.strftime("%Y-%m-%d")],
        ["Patient", str(invoice.patient_id)],
        ["Payer", payer],
    ]
    return {
        "seller": printed.seller,
        "title": title,
        "facts": facts if is_act else [*facts, ["Due", invoice.due_on.isoformat()]],
        "header": ["No.", "Service", "Quantity", "Price", "Amount"],
        "rows": [
            [
                str(number),
                printed.names.get(line.service_code, line.service_code),
                str(line.quantity),
                to_text(line.unit_amount_minor, invoice.currency),
                to_text(line.amount_minor, invoice.currency),
            ]
            for number, line in enumerate(invoice.lines, start=1)
        ],
        "sums": _sums(invoice, is_act=is_act),
        "signatures": ["For the clinic", "For the payer"] if is_act else [],
    }


def _sums(invoice: Invoice, *, is_act: bool) -> list[list[str]]:
    sums = [("Total, without VAT", invoice.total_minor)]
    if not is_act:
        sums += [("Paid", invoice.paid_minor), ("To pay", invoice.outstanding_minor)]
    return [[name, f"{to_text(amount, invoice.currency)} {invoice.currency}"] for name, amount in sums]
