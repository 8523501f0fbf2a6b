"""An export on paper."""

import json
from dataclasses import asdict

from clinic_patients.exports.exporting import Taken
from clinic_patients.exports.package import sections, shortened

# Data comes in as JSON and is only ever shown as text: nothing that somebody wrote is markup here.
_TEMPLATE = """
#let paper = json(bytes(sys.inputs.paper))
#set page(paper: "a4", margin: 18mm, numbering: "1 / 1")
#set text(font: "Libertinus Serif", size: 9pt)
#text(size: 16pt, weight: "bold")[#paper.title]
#if paper.left_out > 0 [
  #v(2mm)
  #strong[#paper.left_out more entries are in the machine-readable export only.]
]
#for section in paper.sections {
  heading(level: 1, text(section.title))
  for thing in section.things {
    table(columns: (38mm, 1fr), stroke: 0.3pt, inset: 2pt,
      ..thing.map(line => (text(fill: gray.darken(40%), line.at(0)), text(line.at(1)))).flatten())
  }
}
"""


def typeset(taken: Taken) -> bytes:
    """Return the export as a PDF. Takes seconds for a long chart."""
    import typst  # noqa: PLC0415  # 30 MB that only this needs

    kept, left_out = shortened(sections(taken))
    shown = {
        "title": "All that is held about you" if taken.export.for_patient else "Copy of a patient's record",
        "left_out": left_out,
        "sections": [asdict(section) for section in kept],
    }
    document = typst.compile(_TEMPLATE.encode(), sys_inputs={"paper": json.dumps(shown)})
    if not isinstance(document, bytes):  # more than one file comes out of other formats only
        raise TypeError(type(document).__name__)
    return document
