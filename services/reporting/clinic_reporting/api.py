"""HTTP in: the reports, and the audit log's checkpoints as they were witnessed here."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from clinic_shared.routing import Caller, ClinicRouter, PageQuery, Tx, page_of
from fastapi import Query

from clinic_reporting import reports, store
from clinic_reporting.models import (
    ActivityFigures,
    AnalysisFigures,
    AppointmentFigures,
    ForkResponse,
    LaboratoryFigures,
    ReferralFigures,
    ReportQuery,
    ReportResponse,
    RevenueFigures,
    UtilisationFigures,
    WitnessesResponse,
    WitnessResponse,
    response_fields,
)

router = ClinicRouter(prefix="/v1/reports", tags=["reporting"])

Asked = Annotated[ReportQuery, Query()]


@router.get("/appointments", permission="reports.read", operation_id="reportAppointments")
async def report_appointments(tx: Tx, caller: Caller, asked: Asked) -> ReportResponse[AppointmentFigures]:
    """Appointments that begin in the period, by newest status and by service.

    A rescheduled appointment is counted once, at its new time. Readers see where they work: the
    network, their centres, or (at department level) their departments.
    """
    report = await reports.appointments(tx, asked.question(), caller)
    items = [AppointmentFigures.of(line, report.names) for line in report.lines]
    return ReportResponse[AppointmentFigures](**response_fields(report), items=items)


@router.get("/utilisation", permission="reports.read", operation_id="reportUtilisation")
async def report_utilisation(tx: Tx, caller: Caller, asked: Asked) -> ReportResponse[UtilisationFigures]:
    """Appointment time that was given away, used and lost, in all and by day.

    It is the numerator of utilisation: receiving hours are not published, so what could have been
    given away is not known here.
    """
    report = await reports.utilisation(tx, asked.question(), caller)
    items = [UtilisationFigures.of(line, report.names) for line in report.lines]
    return ReportResponse[UtilisationFigures](**response_fields(report), items=items)


@router.get("/referrals", permission="reports.read", operation_id="reportReferrals")
async def report_referrals(tx: Tx, caller: Caller, asked: Asked) -> ReportResponse[ReferralFigures]:
    """Referrals created in the period (days of the sending centre), by who refers and who is asked.

    Shown to readers who work at either end. A stage counts every referral that ever reached it.
    """
    report = await reports.referrals(tx, asked.question(), caller)
    items = [ReferralFigures.of(line, report.names) for line in report.lines]
    return ReportResponse[ReferralFigures](**response_fields(report), items=items)


@router.get("/laboratory", permission="reports.read", operation_id="reportLaboratory")
async def report_laboratory(tx: Tx, caller: Caller, asked: Asked) -> ReportResponse[LaboratoryFigures]:
    """Orders and results, and how long results take from the order to the chart.

    Results that answer no known order belong to no centre; readers of the whole network see them.
    """
    report = await reports.laboratory(tx, asked.question(), caller)
    items = [LaboratoryFigures.of(line, report.names) for line in report.lines]
    return ReportResponse[LaboratoryFigures](**response_fields(report), items=items)


@router.get("/laboratory/turnaround", permission="reports.read", operation_id="reportLaboratoryTurnaround")
async def report_turnaround(tx: Tx, caller: Caller, asked: Asked) -> ReportResponse[AnalysisFigures]:
    """How long results take, by laboratory, test and stage: from the order over collection to the chart."""
    report = await reports.turnaround(tx, asked.question(), caller)
    items = [AnalysisFigures.of(line) for line in report.lines]
    return ReportResponse[AnalysisFigures](**response_fields(report), items=items)


@router.get("/revenue", permission="reports.read", operation_id="reportRevenue")
async def report_revenue(tx: Tx, caller: Caller, asked: Asked) -> ReportResponse[RevenueFigures]:
    """What was invoiced, paid and refunded, each on its own day, in minor units by currency."""
    report = await reports.revenue(tx, asked.question(), caller)
    items = [RevenueFigures.of(line, report.names) for line in report.lines]
    return ReportResponse[RevenueFigures](**response_fields(report), items=items)


@router.get("/activity", permission="reports.read", operation_id="reportActivity")
async def report_activity(tx: Tx, caller: Caller, asked: Asked) -> ReportResponse[ActivityFigures]:
    """Registrations, encounters, prescriptions, messages and consents by status."""
    report = await reports.activity(tx, asked.question(), caller)
    items = [ActivityFigures.of(line, report.names) for line in report.lines]
    return ReportResponse[ActivityFigures](**response_fields(report), items=items)


@router.get("/witnesses", permission="audit.verify", operation_id="listAuditWitnesses")
async def list_witnesses(tx: Tx, page: PageQuery) -> WitnessesResponse:
    """List the audit log's checkpoints seen here, newest first; compare them with the log's own.

    A log that was rewritten no longer contains a checkpoint that stands here.
    """
    key = page.after_key(datetime, UUID, str)
    rows = await store.list_witnesses(tx, after=key, limit=page.limit + 1)
    witnesses = [WitnessResponse.model_validate(row, from_attributes=True) for row in rows]
    shown = page_of(witnesses, page, key=lambda w: (w.signed_at, w.checkpoint_id, w.root_hash))
    forks = [ForkResponse.model_validate(row, from_attributes=True) for row in await store.list_forks(tx)]
    return WitnessesResponse(items=shown.items, next_cursor=shown.next_cursor, forks=forks)
