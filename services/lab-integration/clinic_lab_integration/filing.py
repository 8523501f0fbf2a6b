"""From a durable message to results: each patient group gets its patient, each report its next version.

A group is applied only when the chart says so (LabResultFiled); what can't be decided here is parked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import structlog
from clinic_shared import metrics
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.intake import Item
from prometheus_client import Counter

from clinic_lab_integration import (
    ahead,
    application_answers,
    code_maps,
    matching,
    obligations,
    onboarding,
    result_store,
    store,
    turns,
    unit_store,
)
from clinic_lab_integration.ahead import Ahead
from clinic_lab_integration.domain import (
    Disposition,
    MessageId,
    Parked,
    ParkReason,
    ReportVersion,
    ResultId,
    SentReport,
    Superseded,
    next_version,
    order_status,
    settled,
)
from clinic_lab_integration.events import Place, result_event
from clinic_lab_integration.matching import Group, Match
from clinic_lab_integration.messages import MessageNote
from clinic_lab_integration.once import once
from clinic_lab_integration.store import LabOrder, Partner
from clinic_lab_integration.unit_store import Outcome, Unit, UnitReport

log = structlog.get_logger()

INCIDENTS = Counter(
    "clinic_lab_incidents_total",
    "What should not have happened and was not refused",
    ["kind"],
    registry=metrics.REGISTRY,
)

CONTROL_ID_REUSED = "control-id-reused"


@dataclass(frozen=True)
class Processing:
    """Works messages off: what the intake worker calls."""

    parks_test_messages: bool

    async def prepare(self, tx: Transaction, items: Sequence[Item]) -> None:
        await ahead.read_ahead(tx, items, parks_test_messages=self.parks_test_messages)

    async def __call__(self, tx: Transaction, item: Item) -> None:
        """Work one message off, whole."""
        known = await ahead.of_message(tx, item, parks_test_messages=self.parks_test_messages)
        note = known.note
        await _notice_reused_control_id(tx, item, known)
        if not note.is_accepted:
            unit = _new_unit(item, note, 0, Disposition.REJECTED)
            unit_store.add_unit(tx, unit, Outcome(Disposition.REJECTED, _refusal(note)))
            if note.sandbox and note.outcome is not None:
                await onboarding.note_cases(tx, unit.partner_id, item.id, {onboarding.REFUSAL})
            return
        await application_answers.send_by_callback(tx, item, note)
        if note.sandbox:
            await onboarding.take(tx, item, note, known.partner)
        else:
            await self._file(tx, item, known)

    async def _file(self, tx: Transaction, item: Item, known: Ahead) -> None:
        note, groups = known.note, known.groups
        matched = known.found
        if not (note.is_test and self.parks_test_messages):
            matched = await matching.match_surely(tx, UUID(note.partner_id), groups, matched)
        if known.partner is not None:
            await turns.take_turn(tx, item, known.partner, groups, matched)
        await store.lock_patients(tx, (m.whose for m in matched if isinstance(m.whose, UUID)))
        for group, found in zip(groups, matched, strict=True):
            unit = _new_unit(item, note, group.index, Disposition.IN_FLIGHT)
            await _take(tx, unit, group, found, known.partner)


async def _take(tx: Transaction, unit: Unit, group: Group, found: Match, partner: Partner | None) -> None:
    """Decide what becomes of a new group, and store it as that."""
    if isinstance(found.whose, ParkReason):
        unit_store.add_unit(tx, unit, Outcome(Disposition.PARKED, found.whose))
        if found.whose is not ParkReason.NOT_FOR_PRODUCTION:
            await unit_store.want(tx, unit, group.keys)
        return
    filing = Filing(partner, found.whose, found.orders)
    unit_store.add_unit(tx, unit, await file_reports(tx, unit, group, filing))


async def _notice_reused_control_id(tx: Transaction, item: Item, known: Ahead) -> None:
    """The same control id with other bytes is taken like any message, and somebody is told."""
    if known.earlier_id is None:
        return
    await unit_store.add_incident(
        tx,
        kind=CONTROL_ID_REUSED,
        partner_id=UUID(known.note.partner_id),
        message_id=item.id,
        earlier_message_id=known.earlier_id,
    )
    INCIDENTS.labels(kind=CONTROL_ID_REUSED).inc()
    log.warning("lab_control_id_reused", message_id=item.id, partner_id=UUID(known.note.partner_id))


def _refusal(note: MessageNote) -> str:
    """Why a message has no effect: the answer it got, or that it was an answer itself."""
    if note.outcome is None:
        return "acknowledgement"
    return f"answered-{(note.answer_code or note.outcome).lower()}"


def _new_unit(item: Item, note: MessageNote, index: int, disposition: Disposition) -> Unit:
    return Unit(
        message_id=MessageId(item.id),
        group_index=index,
        partner_id=UUID(note.partner_id),
        disposition=disposition,
        reason=None,
        patient_id=None,
        received_at=item.received_at,
        interface=item.interface,
    )


@dataclass(frozen=True)
class Filing:
    """For whom a group is filed. `decided` by a person: then no order of arrival holds."""

    partner: Partner | None
    patient_id: UUID
    orders: Mapping[str, LabOrder]
    decided: bool = False

    def order_of(self, sent: SentReport) -> LabOrder | None:
        """The order that a report answers; not one of another patient, whatever a person has decided."""
        order = self.orders.get(sent.own_order_number or "")
        return order if order is not None and order.patient_id == self.patient_id else None


async def file_reports(
    tx: Transaction, unit: Unit, group: Group, filing: Filing, known: Sequence[UnitReport] = ()
) -> Outcome:
    """File what isn't filed yet of a group; `known` is what became of its reports before. The patient is locked."""
    if not group.reports:
        return Outcome(Disposition.PARKED, ParkReason.NO_RESULTS, filing.patient_id)
    reports = {r.report_index: r for r in known if r.disposition is not Disposition.PARKED}
    undecided = [sent for sent in group.reports if sent.index not in reports]
    understood = await code_maps.understood(tx, unit.partner_id, undecided, message_id=unit.message_id)
    decided = [await _file(tx, unit, sent, filing) for sent in understood]
    reports |= {report.report_index: report for report in decided}
    parked = [ParkReason(r.reason) for r in decided if r.reason]
    disposition = settled(report.disposition for report in reports.values())
    return Outcome(disposition, parked[0] if parked else None, filing.patient_id, tuple(decided))


async def _file(tx: Transaction, unit: Unit, sent: SentReport, filing: Filing) -> UnitReport:
    key = (unit.partner_id, filing.patient_id, sent.key)
    result_id, known = await ahead.known_result(tx, key)
    match next_version(known, sent, decided=filing.decided):
        case Superseded():
            return UnitReport(
                report_index=sent.index,
                disposition=Disposition.SUPERSEDED,
                result_id=result_id,
                result_version=known.version,
            )
        case Parked(reason):
            return UnitReport(report_index=sent.index, disposition=Disposition.PARKED, reason=reason.value)
        case new:
            await publish(tx, unit, sent, result_id, known, new, filing)
            return UnitReport(
                report_index=sent.index,
                disposition=Disposition.IN_FLIGHT,
                result_id=result_id,
                result_version=new.version,
            )


async def publish(
    tx: Transaction,
    unit: Unit,
    sent: SentReport,
    result_id: ResultId,
    known: ReportVersion,
    new: ReportVersion,
    filing: Filing,
) -> None:
    order = filing.order_of(sent) or await _order_of_parent(tx, unit, sent, filing)
    place = await place_of(tx, order, filing.partner)
    result_store.add_version(
        tx,
        unit,
        sent,
        new,
        result_id=result_id,
        patient_id=filing.patient_id,
        lab_order_id=place.lab_order_id,
    )
    ahead.note_version(tx, (unit.partner_id, filing.patient_id, sent.key), result_id, new)
    tx.emit(
        result_event(
            result_id,
            new,
            sent,
            patient_id=filing.patient_id,
            partner_id=unit.partner_id,
            message_id=unit.message_id,
            group_index=unit.group_index,
            received_at=unit.received_at,
            place=place,
        )
    )
    about = obligations.About(
        result_id=result_id,
        result_version=new.version,
        patient_id=filing.patient_id,
        partner_id=unit.partner_id,
    )
    await obligations.watch(tx, about, known, new, place=place, partner=filing.partner)
    if order is not None:
        results = await store.results_of_order(tx, order.lab_order_id)
        await store.save_order_status(tx, order.lab_order_id, order_status(order.tests, results))
    tx.audit(
        AuditEntry(
            action=Action.CREATE,
            resource_type="DiagnosticReport",
            resource_id=result_id,
            patient_id=filing.patient_id,
            details={"version": str(new.version), "status": new.status.value},
        )
    )


async def _order_of_parent(tx: Transaction, unit: Unit, sent: SentReport, filing: Filing) -> LabOrder | None:
    if not sent.parent_filler_order_number:
        return None
    lab_order_id = await result_store.order_of_parent(
        tx,
        partner_id=unit.partner_id,
        patient_id=filing.patient_id,
        parent_filler_order_number=sent.parent_filler_order_number,
    )
    return await store.find_order(tx, lab_order_id) if lab_order_id else None


async def place_of(tx: Transaction, order: LabOrder | None, partner: Partner | None) -> Place:
    """Who ordered; of what nobody here ordered, the department that looks after this laboratory."""
    if order is not None:
        return Place(
            lab_order_id=order.lab_order_id,
            practitioner_id=order.practitioner_id,
            centre_id=order.centre_id,
            department_id=order.department_id,
        )
    if partner is None or partner.default_department_id is None:
        return Place()
    department_id = partner.default_department_id
    read = partial(store.find_department, tx, department_id)
    department = await once(tx, ("department", department_id), read)
    return Place(centre_id=department.centre_id if department else None, department_id=department_id)
