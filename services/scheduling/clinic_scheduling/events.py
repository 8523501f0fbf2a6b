"""Events out: each carries the aggregate's resulting state (contracts/events/scheduling)."""

from datetime import datetime

from clinic_shared.events import Event, wire_id, wire_instant

from clinic_scheduling.domain import Appointment, CatalogueService


def service_event(name: str, service: CatalogueService, **stamps: datetime) -> Event:
    """`name` is service-defined, service-changed or service-withdrawn; `stamps` are its own instants."""
    return Event(
        type=f"scheduling.{name}.v1",
        subject=service.service_id,
        aggregate_version=service.version,
        data={
            "service_id": str(service.service_id),
            "version": service.version,
            "code": service.code,
            "name": service.name,
            "status": "active" if service.active else "withdrawn",
            "duration_seconds": int(service.duration.total_seconds()),
            "department_ids": [str(d) for d in service.department_ids],
            "needs": [need.value for need in service.needs],
            "online_bookable": service.online_bookable,
            "defined_at": wire_instant(service.defined_at),
            **{stamp: wire_instant(moment) for stamp, moment in stamps.items()},
        },
    )


def appointment_event(
    name: str,
    appointment: Appointment,
    *,
    time_zone: str,
    service_name: str | None = None,
    practitioner_name: str | None = None,
    **stamps: datetime,
) -> Event:
    """`name` is the event's own, such as appointment-booked; `stamps` are instants that only it carries."""
    a = appointment
    return Event(
        type=f"scheduling.{name}.v1",
        subject=a.appointment_id,
        aggregate_version=a.version,
        patient_id=a.patient_id,
        data={
            "appointment_id": str(a.appointment_id),
            "version": a.version,
            "status": a.status.value,
            "patient_id": str(a.patient_id),
            "practitioner_id": wire_id(a.practitioner_id),
            "room_id": wire_id(a.room_id),
            "device_ids": [str(d) for d in a.device_ids],
            "service_id": str(a.service_id),
            "service_code": a.service_code,
            "centre_id": str(a.centre_id),
            "department_id": str(a.department_id),
            "starts_at": wire_instant(a.time.starts_at),
            "ends_at": wire_instant(a.time.ends_at),
            "time_zone": time_zone,
            "referral_id": wire_id(a.referral_id),
            "booked_through": a.booked_through,
            "booked_at": wire_instant(a.booked_at),
            "confirmed_at": wire_instant(a.confirmed_at),
            "arrived_at": wire_instant(a.arrived_at),
            "completed_at": wire_instant(a.completed_at),
            "cancelled_at": wire_instant(a.cancelled_at),
            "missed_at": wire_instant(a.missed_at),
            "cancellation_reason_code": a.cancellation_reason_code,
            **{stamp: wire_instant(moment) for stamp, moment in stamps.items()},
        },
        private={
            "service_name": service_name,
            "practitioner_name": practitioner_name,
            "reason": a.reason,
        },
    )
