"""Messages that were worked off before, taken up again with today's parser, maps and panic ranges.

A correction is made only of what is understood otherwise now, and only while nothing newer rests on it. What was
refused then and is taken now is filed; what was unmatched is matched; what a person has decided stays.
"""

from dataclasses import dataclass, replace
from typing import Any

from clinic_shared.database import Transaction
from clinic_shared.intake import Item, intake_table
from sqlalchemy import update

from clinic_lab_integration import ahead, code_maps, filing, result_store, store, stored, unit_store, worklist
from clinic_lab_integration.ahead import Ahead
from clinic_lab_integration.domain import (
    RELEASED,
    RETRACTED,
    Disposition,
    ParkReason,
    ReportContent,
    ReportVersion,
    SentReport,
    merged,
    settled,
)
from clinic_lab_integration.filing import Filing
from clinic_lab_integration.hl7 import ResultStatus
from clinic_lab_integration.matching import Group, Match
from clinic_lab_integration.messages import MessageNote
from clinic_lab_integration.unit_store import Outcome, Unit, UnitReport

_FILED = {Disposition.APPLIED, Disposition.IN_FLIGHT, Disposition.SUPERSEDED}


@dataclass(frozen=True)
class Processing(filing.Processing):
    """Works messages off, and takes up again those that were worked off before."""

    async def again(self, tx: Transaction, item: Item) -> None:
        known = await ahead.of_message(tx, item, parks_test_messages=self.parks_test_messages)
        if known.note.sandbox or known.note.outcome is None:
            return
        if not known.note.is_accepted:
            await self._take_now(tx, item, known.note)
            return
        for group, found in zip(known.groups, known.found, strict=True):
            unit = await unit_store.lock_unit(tx, item.id, group.index)
            if unit is not None:
                await _take_up(tx, unit, group, found, known)

    async def _take_now(self, tx: Transaction, item: Item, note: MessageNote) -> None:
        """What was refused, and its sender told so, is filed if it would be taken now."""
        groups = stored.group_count_if_taken(item.interface, item.body, note)
        if groups is None:
            return
        taken = {"outcome": "accept", "groups": groups}
        attributes = intake_table.c.attributes.concat(taken)
        await tx.execute(
            update(intake_table).where(intake_table.c.id == item.id).values(attributes=attributes)
        )
        await unit_store.remove_rejected(tx, item.id)
        tx.known.clear()
        await self(tx, replace(item, attributes={**item.attributes, **taken}))


async def _take_up(tx: Transaction, unit: Unit, group: Group, found: Match, known: Ahead) -> None:
    if unit.disposition in _FILED and unit.patient_id is not None:
        await _correct(tx, unit, group, Filing(known.partner, unit.patient_id, found.orders))
    elif _was_unmatched(unit) and not isinstance(found.whose, ParkReason):
        await worklist.file_matched(tx, unit, group, found, patient_id=found.whose)


def _was_unmatched(unit: Unit) -> bool:
    undone = unit.reason == ParkReason.UNDONE
    return unit.disposition is Disposition.PARKED and unit.patient_id is None and not undone


async def _correct(tx: Transaction, unit: Unit, group: Group, filed_for: Filing) -> None:
    await store.lock_patients(tx, [filed_for.patient_id])
    reports = {report.report_index: report for report in await unit_store.list_reports(tx, unit)}
    understood = await code_maps.understood(tx, unit.partner_id, group.reports, message_id=unit.message_id)
    corrected = [
        report
        for sent in understood
        if sent.index in reports
        and (report := await _correct_report(tx, unit, sent, reports[sent.index], filed_for))
    ]
    if corrected:
        reports |= {report.report_index: report for report in corrected}
        disposition = settled(report.disposition for report in reports.values())
        outcome = Outcome(disposition, patient_id=unit.patient_id, reports=tuple(corrected))
        unit_store.settle_unit(tx, unit, outcome)


async def _correct_report(
    tx: Transaction, unit: Unit, sent: SentReport, report: UnitReport, filed_for: Filing
) -> UnitReport | None:
    """Publish the next version of a report if it reads otherwise now; None if nothing is to be done."""
    if report.result_id is None or report.disposition is Disposition.SUPERSEDED:
        return None
    result_id, newest = await result_store.find_newest(tx, report.result_id)
    if newest.version != report.result_version or newest.status in RETRACTED:
        return None
    before = await result_store.find_content(tx, result_id, newest.version - 1)
    new = _reread(newest, merged(before, sent.content))
    if new is None:
        return None
    await filing.publish(tx, unit, sent, result_id, newest, new, filed_for)
    return replace(report, disposition=Disposition.IN_FLIGHT, result_version=new.version, filed_at=None)


def _reread(newest: ReportVersion, content: ReportContent) -> ReportVersion | None:
    """Return the version that says what is understood now; None if that is what the newest says."""
    if _told(content) == _told(newest.content):
        return None
    status = ResultStatus.CORRECTED if newest.status in RELEASED else newest.status
    return replace(newest, version=newest.version + 1, status=status, content=content)


def _told(content: ReportContent) -> Any:
    """All that a reader is told: what was written, and what it means, by whichever version of the map."""
    meanings = [o.meaning and replace(o.meaning, map_version=None) for o in content.observations]
    return content.as_written(), meanings
