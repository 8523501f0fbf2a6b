"""Taking a person's decision about a group back: it is parked again, and what it put into a chart is withdrawn."""

from dataclasses import replace
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import NotFoundError
from clinic_shared.principal import Principal

from clinic_lab_integration import filing, result_store, store, unit_store, worklist
from clinic_lab_integration.domain import (
    Disposition,
    ParkReason,
    ReportContent,
    ReportVersion,
    SentReport,
)
from clinic_lab_integration.errors import (
    NotUndoableError,
)
from clinic_lab_integration.filing import Filing
from clinic_lab_integration.hl7 import ResultStatus
from clinic_lab_integration.matching import Group
from clinic_lab_integration.unit_store import Outcome, Unit, UnitReport

_UNDOABLE = {Disposition.IN_FLIGHT, Disposition.APPLIED, Disposition.SUPERSEDED, Disposition.DISCARDED}
_WITHDRAWAL = "entered-in-error"


async def undo(tx: Transaction, unit_id: tuple[UUID, int], reason: str, *, caller: Principal) -> Unit:
    """Park a group again that a person has attached or discarded. Raises NotFoundError, NotUndoableError.

    It isn't matched by itself any more: whoever took the decision back decides again.
    """
    unit = await unit_store.lock_unit(tx, *unit_id)
    if unit is None:
        raise NotFoundError
    if unit.decided_by is None or unit.disposition not in _UNDOABLE:
        raise NotUndoableError(disposition=unit.disposition.value)
    parked = tuple(
        UnitReport(
            report_index=report.report_index,
            disposition=Disposition.PARKED,
            reason=ParkReason.UNDONE.value,
        )
        for report in await _withdraw(tx, unit)
    )
    unit_store.settle_unit(tx, unit, Outcome(Disposition.PARKED, ParkReason.UNDONE, reports=parked))
    await unit_store.note_decision(tx, unit, decided_by=None)
    await unit_store.note(tx, unit, reason, noted_by=caller.subject)
    tx.audit(
        AuditEntry(
            action=Action.UPDATE,
            resource_type="LabMessage",
            resource_id=f"{unit.message_id}:{unit.group_index}",
            patient_id=unit.patient_id,
            details={"decision": "undone"},
        )
    )
    return await worklist.current(tx, unit_id)


async def _withdraw(tx: Transaction, unit: Unit) -> list[UnitReport]:
    """Say to the chart that what this group put there was a mistake; returns the reports of the group."""
    reports = await unit_store.list_reports(tx, unit)
    if unit.patient_id is None or unit.disposition is Disposition.DISCARDED:
        return reports
    await store.lock_patients(tx, [unit.patient_id])
    group = await worklist.read_group(tx, unit)
    partner = await store.find_partner(tx, unit.partner_id)
    filed_for = Filing(partner, unit.patient_id, await _orders(tx, group), decided=True)
    by_index = {sent.index: sent for sent in group.reports}
    for report in reports:
        if report.result_id is not None and report.disposition is not Disposition.SUPERSEDED:
            await _withdraw_report(tx, unit, by_index[report.report_index], report, filed_for)
    return reports


async def _orders(tx: Transaction, group: Group) -> dict[str, store.LabOrder]:
    orders = await store.orders_with(tx, group.order_numbers)
    return {order.placer_order_number: order for order in orders}


async def _withdraw_report(
    tx: Transaction, unit: Unit, sent: SentReport, report: UnitReport, filed_for: Filing
) -> None:
    key = (unit.partner_id, filed_for.patient_id, sent.key)
    result_id, known = await result_store.find_result(tx, key)
    if known.version != report.result_version:
        raise NotUndoableError(result_id=str(report.result_id), current_version=known.version)
    await filing.publish(tx, unit, sent, result_id, known, _withdrawn(known), filed_for)


def _withdrawn(known: ReportVersion) -> ReportVersion:
    return replace(
        known,
        version=known.version + 1,
        status=ResultStatus.ENTERED_IN_ERROR,
        retraction_reason_code=_WITHDRAWAL,
        content=ReportContent(),
    )
