"""Events out: each carries the aggregate's resulting state (contracts/events/lab-integration)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from clinic_shared.events import Event, wire_id, wire_instant

from clinic_lab_integration.domain import RETRACTED, ObservationState, ReportVersion, SentReport
from clinic_lab_integration.hl7 import ResultStatus
from clinic_lab_integration.store import LabOrder


@dataclass(frozen=True, kw_only=True)
class Place:
    """Who ordered and where; all None for results that nobody here has ordered."""

    lab_order_id: UUID | None = None
    practitioner_id: UUID | None = None
    centre_id: UUID | None = None
    department_id: UUID | None = None


def order_placed(order: LabOrder) -> Event:
    return Event(
        type="lab-integration.lab-order-placed.v1",
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
        },
        private={"clinical_note": order.clinical_note},
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


def critical_raised(
    obligation_id: UUID,
    observations: Sequence[ObservationState],
    *,
    result_id: UUID,
    result_version: int,
    patient_id: UUID,
    partner_id: UUID,
    place: Place,
    raised_at: datetime,
    acknowledge_by_at: datetime,
) -> Event:
    return Event(
        type="lab-integration.critical-result-raised.v1",
        subject=obligation_id,
        aggregate_version=1,
        patient_id=patient_id,
        data={
            "obligation_id": str(obligation_id),
            "version": 1,
            "status": "open",
            "result_id": str(result_id),
            "result_version": result_version,
            "patient_id": str(patient_id),
            "partner_id": str(partner_id),
            "lab_order_id": wire_id(place.lab_order_id),
            "practitioner_id": wire_id(place.practitioner_id),
            "centre_id": wire_id(place.centre_id),
            "department_id": wire_id(place.department_id),
            "raised_at": wire_instant(raised_at),
            "acknowledge_by_at": wire_instant(acknowledge_by_at),
        },
        private={"observations": _wire(observations)},
    )


def _wire(observations: Sequence[ObservationState]) -> list[dict[str, object]]:
    return [
        asdict(o) | {"interpretation": list(o.interpretation), "notes": list(o.notes)} for o in observations
    ]
