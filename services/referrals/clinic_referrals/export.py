"""What referrals holds about a patient: who was asked what about them, and what became of it."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.exporting import Part, concept, contribute, fhir_status, present, reference
from sqlalchemy import select

from clinic_referrals.tables import WORDS, referral

handlers = Handlers("referrals")


async def gather(tx: Transaction, patient_ids: Sequence[UUID]) -> Part:
    rows = await tx.fetch_all(
        select(referral)
        .where(referral.c.patient_id.in_(patient_ids))
        .order_by(referral.c.created_at, referral.c.referral_id)
    )
    return Part(resources=[_task(WORDS.opened(tx, row)) for row in rows])


def _task(row: Any) -> dict[str, Any]:
    """A referral is the Task of the department that was asked, as BSeR has it."""
    answers = [
        {"type": {"text": name}, "valueString": value}
        for name, value in (("outcome", row.outcome), ("comment", row.decline_comment))
        if value
    ]
    return present(
        resourceType="Task",
        id=row.referral_id,
        status=fhir_status("referral", row.status),
        statusReason=concept(row.decline_reason_code or row.close_reason_code),
        businessStatus=concept(row.status),
        intent="order",
        priority=row.priority,
        code=concept(row.service_code),
        description=row.question,
        authoredOn=row.created_at,
        lastModified=row.closed_at or row.reported_at or row.seen_at or row.accepted_at,
        requester=reference("Practitioner", row.from_practitioner_id),
        owner=reference("Practitioner", row.to_practitioner_id)
        or reference("Organization", row.to_department_id),
        encounter=reference("Encounter", row.source_encounter_id),
        output=answers,
        **{"for": reference("Patient", row.patient_id)},
    )


contribute(handlers, "referrals.export-part-ready.v1", gather)
