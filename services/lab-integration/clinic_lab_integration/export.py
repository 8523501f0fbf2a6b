"""What lab-integration holds about a patient: orders, and what of their results was pressing.

Results are in the chart. What laboratories sent stays here as it came: one message may be about several people.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.exporting import Part, concept, contribute, fhir_status, present, reference, told
from sqlalchemy import Row, select

from clinic_lab_integration.tables import lab_order, obligation, partner

handlers = Handlers("lab-integration")

_OBLIGATION = (
    obligation.c.obligation_id,
    obligation.c.kind,
    obligation.c.status,
    obligation.c.result_id,
    obligation.c.raised_at,
    obligation.c.acknowledged_at,
)


async def gather(tx: Transaction, patient_ids: Sequence[UUID]) -> Part:
    orders = await tx.fetch_all(
        select(lab_order, partner.c.name.label("laboratory"))
        .outerjoin(partner, partner.c.partner_id == lab_order.c.partner_id)
        .where(lab_order.c.patient_id.in_(patient_ids))
        .order_by(lab_order.c.placed_at, lab_order.c.lab_order_id)
    )
    pressing = await tx.fetch_all(
        select(*_OBLIGATION)
        .where(obligation.c.patient_id.in_(patient_ids))
        .order_by(obligation.c.obligation_id)
    )
    return Part(
        resources=[_service_request(row) for row in orders],
        others={"result-obligations": [told(row) for row in pressing]},
    )


def _service_request(row: Row[Any]) -> dict[str, Any]:
    tests = [(test.get("system"), test["code"]) for test in row.tests]
    named = ", ".join(test.get("display") or test["code"] for test in row.tests)
    return present(
        resourceType="ServiceRequest",
        id=row.lab_order_id,
        identifier=[{"value": row.placer_order_number}],
        status=fhir_status("lab-order", row.status),
        intent="order",
        priority=row.priority,
        code=concept(named, *tests),
        subject=reference("Patient", row.patient_id),
        encounter=reference("Encounter", row.encounter_id),
        authoredOn=row.placed_at,
        requester=reference("Practitioner", row.practitioner_id),
        performer=[{"display": row.laboratory}] if row.laboratory else None,
        note=[{"text": text} for text in (row.clinical_note, row.cancellation_reason) if text],
    )


contribute(handlers, "lab-integration.export-part-ready.v1", gather)
