"""The same laboratory messages once more, one by one about each patient, on a system at rest, about others.

Whatever faults did to order, repetition and timing, both tellings must end in the same charts.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate
from typing import Any

from .accounting import Finding, Violation
from .books import Books, Tell
from .people import Lab, Patient, Sent
from .stage import Stage

AGAIN = "again-"
MOST_MESSAGES = 200
_LABORATORIES = 4
Chart = dict[str, list[tuple[Any, ...]]]


def differing_charts(stage: Stage, tell: Tell) -> Iterator[Finding]:
    """Tell it again, wait for quiet, and compare result by result."""
    told = some_of(stage.lab.sent, stage.rng)
    tell(f"telling {len(told)} of {len(stage.lab.sent)} messages about results again")
    twins = {patient_id: stage.desk.register() for patient_id in {sent.patient.patient_id for sent in told}}
    # One by one about each patient; what is told about one means nothing to another.
    with ThreadPoolExecutor(_LABORATORIES) as laboratories:
        list(laboratories.map(partial(_tell_all_again, stage.lab, told), twins, twins.values()))
    verdict = stage.books.settle(tell=tell)
    yield from verdict.findings
    under_faults = _charts(stage.books, twins)
    serial = _charts(stage.books, [twin.patient_id for twin in twins.values()])
    fillers = {sent.filler for sent in told}
    different = sorted(f for f in fillers if under_faults.get(f) != serial.get(AGAIN + f))
    if different:
        yield Finding(Violation.DIFFERENT, "charts of a serial run", tuple(different))


def some_of(told: Sequence[Sent], rng: random.Random) -> list[Sent]:
    """Return all messages, or those about as many results as there is time for, each from its first to its last."""
    counts = Counter(sent.filler for sent in told)
    fillers = list(counts)
    rng.shuffle(fillers)
    before = accumulate((counts[filler] for filler in fillers), initial=0)
    chosen = {
        filler for filler, told_before in zip(fillers, before, strict=False) if told_before < MOST_MESSAGES
    }
    return [sent for sent in told if sent.filler in chosen]


def _tell_all_again(lab: Lab, told: Sequence[Sent], patient_id: str, twin: Patient) -> None:
    for sent in told:
        if sent.patient.patient_id == patient_id:
            _tell_again(lab, sent, twin)


def _tell_again(lab: Lab, sent: Sent, twin: Patient) -> None:
    message = sent.message.replace(sent.patient.record_number.encode(), twin.record_number.encode())
    message = message.replace(sent.filler.encode(), (AGAIN + sent.filler).encode())
    header, _, rest = message.partition(b"\r")
    fields = header.split(b"|")
    fields[9] = AGAIN.encode() + fields[9].removeprefix(AGAIN.encode())
    lab.accepted(b"\r".join((b"|".join(fields), rest)))


def _charts(books: Books, patient_ids: Any) -> Chart:
    """Return what is in force and what was before, by filler number, without what only one telling can have."""
    charts: Chart = {}
    for filler, *row in books.query(
        "patients",
        "SELECT filler_order_number, v.version, v.status, v.report_code, o.position, o.code, o.value_type, o.value, "
        "o.units, o.reference_range, o.interpretation, o.status, o.notes "
        "FROM result_version v LEFT JOIN observation o USING (result_id, version) "
        "WHERE v.patient_id = ANY(%s::uuid[]) ORDER BY 1, 2, 5",
        list(patient_ids),
    ):
        charts.setdefault(filler, []).append(tuple(row))
    return charts
