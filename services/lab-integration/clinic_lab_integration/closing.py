"""The chart has filed a report: its line in the ledger is closed, and its group applied once all of its reports are.

What a batch of these asks is asked at once, before the first is handled.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial

import structlog
from clinic_shared.database import Transaction

from clinic_lab_integration import result_store, unit_store
from clinic_lab_integration.domain import Disposition, settled
from clinic_lab_integration.measurements import FILING_SECONDS
from clinic_lab_integration.unit_store import Outcome, Unit, UnitPlace, UnitReport

log = structlog.get_logger()


@dataclass
class _Line:
    """A group of which reports were filed, as this transaction leaves it. It is locked."""

    unit: Unit
    reports: dict[int, UnitReport]


async def read_ahead(tx: Transaction, places: Collection[UnitPlace]) -> None:
    """Read and lock the groups of several reports at once."""
    units = await unit_store.lock_units(tx, sorted(set(places)))
    reports = await unit_store.reports_of(tx, {unit.message_id for unit in units})
    lines: dict[UnitPlace, _Line | None] = dict.fromkeys(places)
    for unit in units:
        place = (unit.message_id, unit.group_index)
        lines[place] = _Line(unit, {report.report_index: report for report in reports.get(place, ())})
    tx.known[unit_store.LINES] = lines


async def close(tx: Transaction, place: UnitPlace, *, report_index: int, version: int) -> None:
    if place not in tx.known.get(unit_store.LINES, {}):
        await read_ahead(tx, [place])
    line: _Line | None = tx.known[unit_store.LINES][place]
    if line is None:
        log.warning("lab_result_of_unknown_message", message_id=place[0])
        return
    report = line.reports.get(report_index)
    if report is None or report.result_id is None or report.disposition is Disposition.APPLIED:
        return
    filed = replace(report, disposition=Disposition.APPLIED, reason=None, filed_at=tx.now)
    line.reports[report_index] = filed
    unit_store.save_reports(tx, line.unit, [filed])
    result_store.mark_filed(tx, report.result_id, version, filed_at=tx.now)
    if line.unit.disposition is Disposition.IN_FLIGHT:
        _settle(tx, line)


def _settle(tx: Transaction, line: _Line) -> None:
    unit = line.unit
    disposition = settled(report.disposition for report in line.reports.values())
    unit_store.write_outcome(tx, unit, Outcome(disposition, patient_id=unit.patient_id))
    line.unit = replace(unit, disposition=disposition)
    if disposition is Disposition.APPLIED:
        seconds = (tx.now - unit.received_at).total_seconds()
        tx.count(partial(FILING_SECONDS.observe, max(0.0, seconds)))
