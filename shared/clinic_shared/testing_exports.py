"""For tests of what a service contributes to a patient's export: ask it as patients does, open what comes."""

import base64
from datetime import timedelta
from uuid import UUID

from clinic_shared.encryption.one_way import new_key_pair
from clinic_shared.events import wire_instant
from clinic_shared.exporting import REQUESTED, Part, context_of, opened_part
from clinic_shared.ids import uuid7
from clinic_shared.testing import ServiceHarness


async def exported(service: ServiceHarness, *patient_ids: UUID | str) -> Part:
    """Return the part of a service for the records of one person."""
    private_key, public_key = new_key_pair()
    export_id, now = uuid7(), service.clock.now()
    asked = {
        "export_id": str(export_id),
        "version": 1,
        "patient_id": str(patient_ids[0]),
        "patient_ids": [str(one) for one in patient_ids],
        "public_key": public_key,
        "requested_at": wire_instant(now),
        "expires_at": wire_instant(now + timedelta(days=7)),
    }
    await service.deliver(REQUESTED, asked, subject=export_id)
    name = service.service.name
    sent = await service.events(f"{name}.export-part-ready.v1")
    pieces = [event for event in sent if event.subject == export_id]
    in_order = sorted(pieces, key=lambda piece: int(piece.data["version"]))
    boxes = [base64.b64decode(piece.private["content"]) for piece in in_order]
    return opened_part(private_key, boxes, context_of(export_id, name))
