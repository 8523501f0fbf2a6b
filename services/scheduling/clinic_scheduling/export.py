"""What scheduling holds about a patient: appointments."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.exporting import Part, concept, contribute, fhir_status, present, reference
from sqlalchemy import Row, select

from clinic_scheduling.tables import appointment, service

handlers = Handlers("scheduling")


async def gather(tx: Transaction, patient_ids: Sequence[UUID]) -> Part:
    rows = await tx.fetch_all(
        select(appointment, service.c.name.label("service_name"))
        .outerjoin(service, service.c.service_id == appointment.c.service_id)
        .where(appointment.c.patient_id.in_(patient_ids))
        .order_by(appointment.c.starts_at, appointment.c.appointment_id)
    )
    return Part(resources=[_appointment(row) for row in rows])


def _appointment(row: Row[Any]) -> dict[str, Any]:
    who = [reference("Patient", row.patient_id), reference("Practitioner", row.practitioner_id)]
    where = [reference("Location", row.centre_id), reference("HealthcareService", row.service_id)]
    return present(
        resourceType="Appointment",
        id=row.appointment_id,
        status=fhir_status("appointment", row.status),
        cancelationReason=concept(row.cancellation_reason_code),
        serviceType=[concept(row.service_name or row.service_code, (None, row.service_code))],
        description=row.reason,
        start=row.starts_at,
        end=row.ends_at,
        created=row.booked_at,
        basedOn=[reference("ServiceRequest", row.referral_id)] if row.referral_id else None,
        participant=[{"actor": actor, "status": "accepted"} for actor in (*who, *where) if actor],
    )


contribute(handlers, "scheduling.export-part-ready.v1", gather)
