"""What notifications holds about a patient: messages to them, and how they want to be written to.

Messages to staff about a patient, which name members of staff, stay here; so do answers that came from a number
and haven't been found to be anybody's.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.exporting import Part, concept, contribute, fhir_status, present, reference, told
from sqlalchemy import select

from clinic_notifications.tables import WORDS, message, preference

handlers = Handlers("notifications")


async def gather(tx: Transaction, patient_ids: Sequence[UUID]) -> Part:
    messages = await tx.fetch_all(
        select(message)
        .where(message.c.patient_id.in_(patient_ids), message.c.staff_id.is_(None))
        .order_by(message.c.queued_at, message.c.message_id)
    )
    preferences = await tx.fetch_all(select(preference).where(preference.c.patient_id.in_(patient_ids)))
    return Part(
        resources=[_communication(WORDS.opened(tx, row)) for row in messages],
        others={"message-preferences": [told(row) for row in preferences]},
    )


def _communication(row: Any) -> dict[str, Any]:
    return present(
        resourceType="Communication",
        id=row.message_id,
        status=fhir_status("message", row.status),
        statusReason=concept(row.failure_code),
        category=[concept(row.purpose)],
        medium=[concept(row.channel)],
        subject=reference("Patient", row.patient_id),
        sent=row.sent_at,
        received=row.delivered_at,
        payload=[{"contentString": row.text}] if row.text else None,
        note=[{"text": f"To {row.recipient}"}] if row.recipient else None,
    )


contribute(handlers, "notifications.export-part-ready.v1", gather)
