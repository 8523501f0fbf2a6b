"""The answer to a Bundle: a Bundle of answers, one for each entry, or the OperationOutcome that refuses it."""

from typing import Any
from uuid import UUID

import orjson

from clinic_lab_integration.fhir.assessment import AssessedBundle
from clinic_lab_integration.fhir.issues import Issue, operation_outcome

MEDIA_TYPE = "application/fhir+json"
_OUTCOME = b'{"resourceType":"OperationOutcome"'
ACCEPTED, REFUSED = 200, 422


def answer(bundle: AssessedBundle, message_id: UUID) -> bytes:
    if not bundle.is_answered_by_entry:
        return refusal(*bundle.issues)
    entries = [_entry(bundle, index, message_id) for index in range(bundle.entry_count)]
    return orjson.dumps({"resourceType": "Bundle", "type": f"{bundle.kind}-response", "entry": entries})


def refusal(*issues: Issue) -> bytes:
    return orjson.dumps(operation_outcome(issues))


def status_of(given: bytes) -> int:
    """The HTTP status that goes with an answer, also with one that was given before."""
    return REFUSED if given.startswith(_OUTCOME) else ACCEPTED


def _entry(bundle: AssessedBundle, index: int, message_id: UUID) -> dict[str, Any]:
    """What is taken is durable and on its way, not yet a resource that could be read: 202, and where to look."""
    outcome = operation_outcome(bundle.issues_of(index))
    if index in bundle.refused:
        return {"response": {"status": "422 Unprocessable Entity", "outcome": outcome}}
    location = f"/v1/lab/messages/{message_id}"
    return {"response": {"status": "202 Accepted", "location": location, "outcome": outcome}}
