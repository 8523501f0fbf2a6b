"""Events out: each carries the aggregate's resulting state (contracts/events/lab-integration)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from clinic_shared.events import Event, wire_id, wire_instant

from clinic_lab_integration.candidates import SEXES, Person
from clinic_lab_integration.domain import (
    OWN_AUTHORITY,
    RETRACTED,
    Identifier,
    ObservationState,
    ReportVersion,
    SentReport,
)
from clinic_lab_integration.escalation import ObligationStatus
from clinic_lab_integration.hl7 import ResultStatus
from clinic_lab_integration.obligation_store import Obligation
from clinic_lab_integration.store import LabOrder
from clinic_lab_integration.unit_store import Unit


@dataclass(frozen=True, kw_only=True)
class Place:
    """Who ordered and where; all None for results that nobody here has ordered."""

    lab_order_id: UUID | None = None
    practitioner_id: UUID | None = None
    centre_id: UUID | None = None
    department_id: UUID | None = None


def order_placed(order: LabOrder) -> Event:
    return _order_event("lab-integration.lab-order-placed.v1", order, {})


def order_cancelled(order: LabOrder) -> Event:
    return _order_event(
        "lab-integration.lab-order-cancelled.v1",
        order,
        {"cancelled_at": wire_instant(order.cancelled_at), "cancelled_by": wire_id(order.cancelled_by)},
    )


def _order_event(event_type: str, order: LabOrder, more: dict[str, object]) -> Event:
    return Event(
        type=event_type,
        subject=order.lab_order_id,
        aggregate_version=order.version,
        patient_id=order.patient_id,
        data={
            "lab_order_id": str(order.lab_order_id),
            "version": order.version,
            "status": order.status.value,
            "placer_order_number": order.placer_order_number,
            "patient_id": str(order.patient_id),
            "partner_id": str(order.partner_id),
            "practitioner_id": str(order.practitioner_id),
            "centre_id": str(order.centre_id),
            "department_id": str(order.department_id),
            "appointment_id": wire_id(order.appointment_id),
            "encounter_id": wire_id(order.encounter_id),
            "referral_id": wire_id(order.referral_id),
            "priority": order.priority,
            "tests": [asdict(test) for test in order.tests],
            "placed_at": wire_instant(order.placed_at),
            **more,
        },
        private={"clinical_note": order.clinical_note},
    )


def patient_requested(
    patient_id: UUID,
    person: Person,
    identifiers: Sequence[Identifier],
    *,
    unit: Unit,
    centre_id: UUID | None,
    requested_by: UUID,
    requested_at: datetime,
) -> Event:
    """Somebody whom a laboratory names is to be registered under this id."""
    return Event(
        type="lab-integration.patient-requested.v1",
        subject=patient_id,
        aggregate_version=1,
        patient_id=patient_id,
        data={
            "patient_id": str(patient_id),
            "version": 1,
            "partner_id": str(unit.partner_id),
            "message_id": str(unit.message_id),
            "group_index": unit.group_index,
            "centre_id": wire_id(centre_id),
            "requested_by": str(requested_by),
            "requested_at": wire_instant(requested_at),
        },
        private={
            "name": {"family": person.family, "given": person.given, "patronymic": person.patronymic},
            "birth_on": person.birth_on.isoformat() if person.birth_on else None,
            "sex": SEXES.get(person.sex or "", "unknown"),
            "identifiers": [asdict(i) for i in identifiers if i.authority != OWN_AUTHORITY],
        },
    )


def result_event(
    result_id: UUID,
    version: ReportVersion,
    sent: SentReport,
    *,
    patient_id: UUID,
    partner_id: UUID,
    message_id: UUID,
    group_index: int,
    received_at: datetime,
    place: Place,
) -> Event:
    """LabResultReceived, LabResultCorrected or LabResultRetracted, by the status."""
    content = version.content
    return Event(
        type=f"lab-integration.{_name_for(version.status)}.v1",
        subject=result_id,
        aggregate_version=version.version,
        patient_id=patient_id,
        data={
            "result_id": str(result_id),
            "version": version.version,
            "status": version.status.value,
            "lab_order_id": wire_id(place.lab_order_id),
            "placer_order_number": sent.placer_order_number,
            "filler_order_number": sent.filler_order_number,
            "parent_filler_order_number": sent.parent_filler_order_number,
            "patient_id": str(patient_id),
            "partner_id": str(partner_id),
            "message_id": str(message_id),
            "group_index": group_index,
            "report_index": sent.index,
            "practitioner_id": wire_id(place.practitioner_id),
            "centre_id": wire_id(place.centre_id),
            "department_id": wire_id(place.department_id),
            "report": {"code": sent.code, "system": sent.system, "display": sent.display},
            "observation_count": len(content.observations),
            "abnormal_count": content.count(critical=False),
            "critical_count": content.count(critical=True),
            "collected_at": wire_instant(version.collected_at),
            "reported_at": wire_instant(version.reported_at),
            "received_at": wire_instant(received_at),
            "retraction_reason_code": version.retraction_reason_code,
        },
        private={
            "observations": _wire(content.observations),
            "conclusion": content.conclusion,
            "notes": list(content.notes),
        },
    )


def _name_for(status: ResultStatus) -> str:
    if status in RETRACTED:
        return "lab-result-retracted"
    if status in {ResultStatus.AMENDED, ResultStatus.CORRECTED}:
        return "lab-result-corrected"
    return "lab-result-received"


def critical_event(obligation: Obligation, observations: Sequence[ObservationState]) -> Event:
    """CriticalResultRaised, CriticalResultEscalated or CriticalResultAcknowledged, by the status."""
    o = obligation
    return Event(
        type=f"lab-integration.{_NAME_OF_STEP[o.status]}.v1",
        subject=o.obligation_id,
        aggregate_version=o.version,
        patient_id=o.patient_id,
        data={
            "obligation_id": str(o.obligation_id),
            "version": o.version,
            "status": o.status.value,
            "result_id": str(o.result_id),
            "result_version": o.result_version,
            "patient_id": str(o.patient_id),
            "partner_id": str(o.partner_id),
            "lab_order_id": wire_id(o.lab_order_id),
            "practitioner_id": wire_id(o.practitioner_id),
            "centre_id": wire_id(o.centre_id),
            "department_id": wire_id(o.department_id),
            "raised_at": wire_instant(o.raised_at),
            "acknowledge_by_at": wire_instant(o.acknowledge_by_at),
            "owner_role": o.owner_role.value,
            "owner_id": wire_id(o.owner_id),
            "due_at": wire_instant(o.due_at),
            "escalations": o.escalations,
            "acknowledged_by": wire_id(o.acknowledged_by),
            "acknowledged_at": wire_instant(o.acknowledged_at),
        },
        private={"observations": _wire(observations), "comment": o.comment},
    )


def obligation_assigned(obligation: Obligation, assigned_at: datetime) -> Event:
    """Whoever is asked is to be told, wherever they are. Without the patient: it goes out to phones."""
    o = obligation
    return Event(
        type="lab-integration.obligation-assigned.v1",
        subject=o.obligation_id,
        aggregate_version=o.version,
        data={
            "obligation_id": str(o.obligation_id),
            "version": o.version,
            "status": o.status.value,
            "kind": o.kind.value,
            "centre_id": wire_id(o.centre_id),
            "department_id": wire_id(o.department_id),
            "owner_role": o.owner_role.value,
            "owner_id": wire_id(o.owner_id),
            "due_at": wire_instant(o.due_at),
            "assigned_at": wire_instant(assigned_at),
        },
    )


_NAME_OF_STEP = {
    ObligationStatus.OPEN: "critical-result-raised",
    ObligationStatus.ESCALATED: "critical-result-escalated",
    ObligationStatus.ACKNOWLEDGED: "critical-result-acknowledged",
}


def _wire(observations: Sequence[ObservationState]) -> list[dict[str, object]]:
    return [
        o.as_written()
        | {"interpretation": list(o.interpretation), "notes": list(o.notes)}
        | ({"meaning": asdict(o.meaning)} if o.meaning else {})
        for o in observations
    ]
