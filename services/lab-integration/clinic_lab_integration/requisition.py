"""The paper that goes with a tube: who, what, and the order number as a barcode."""

import json

from clinic_lab_integration import code128
from clinic_lab_integration.candidates import Person
from clinic_lab_integration.store import LabOrder

# Data comes in as JSON and is only ever shown as text: nothing that somebody wrote is markup here.
_TEMPLATE = """
#let order = json(bytes(sys.inputs.order))
#set page(paper: "a5", margin: 12mm)
#set text(font: "Libertinus Serif", size: 10pt)
#align(right)[#text(size: 8pt)[#order.placed_at]]
#align(center)[
  #box(width: order.modules * 0.33mm, height: 14mm)[
    #for bar in order.bars {
      place(dx: bar.at(0) * 0.33mm, rect(width: bar.at(1) * 0.33mm, height: 14mm, fill: black, stroke: none))
    }
  ]
  #v(1mm)
  #text(font: "DejaVu Sans Mono", size: 11pt)[#order.number]
]
#v(4mm)
#table(columns: (auto, 1fr), stroke: 0.4pt,
  ..order.lines.map(line => (strong(line.at(0)), text(line.at(1)))).flatten())
#v(2mm)
#table(columns: (auto, 1fr), stroke: 0.4pt, table.header(strong("Code"), strong("Test")),
  ..order.tests.flatten())
#if order.note != none [ #v(2mm) #text(order.note) ]
"""


def typeset(order: LabOrder, person: Person) -> bytes:
    """Return the requisition as a PDF. Takes some hundred milliseconds."""
    import typst  # noqa: PLC0415  # 30 MB that only this needs

    document = typst.compile(_TEMPLATE.encode(), sys_inputs={"order": json.dumps(_shown(order, person))})
    if not isinstance(document, bytes):  # more than one file comes out of other formats only
        raise TypeError(type(document).__name__)
    return document


def _shown(order: LabOrder, person: Person) -> dict[str, object]:
    name = " ".join(part for part in (person.family, person.given, person.patronymic) if part)
    birth = person.birth_on.isoformat() if person.birth_on else ""
    return {
        "number": order.placer_order_number,
        "bars": code128.bars(order.placer_order_number),
        "modules": code128.width(order.placer_order_number),
        "placed_at": order.placed_at.strftime("%Y-%m-%d %H:%M UTC"),
        "lines": [
            ["Patient", name],
            ["Born", " ".join(part for part in (birth, person.sex or "") if part)],
            ["Priority", order.priority],
            ["Status", order.status.value],
        ],
        "tests": [[test.code, test.display or ""] for test in order.tests],
        "note": order.clinical_note,
    }
