"""What is wrong with a resource, where, in FHIR's words (http://hl7.org/fhir/R4/operationoutcome.html).

Texts are fixed sentences: they travel to the sender and into logs, so they never repeat the resource.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """Only an error refuses; the rest is kept beside what was taken."""

    ERROR = "error"
    WARNING = "warning"
    INFORMATION = "information"


@dataclass(frozen=True, slots=True)
class Issue:
    """`code` is of the value set issue-type; `path` is FHIRPath, as `Bundle.entry[0].resource.status`."""

    severity: Severity
    code: str
    path: str
    text: str

    def document(self) -> dict[str, Any]:
        return {
            "severity": self.severity.value,
            "code": self.code,
            "details": {"text": self.text},
            "expression": [self.path],
        }


def operation_outcome(issues: Iterable[Issue]) -> dict[str, Any]:
    found = [issue.document() for issue in issues]
    everything_is_well = {
        "severity": "information",
        "code": "informational",
        "details": {"text": "Taken as a whole"},
    }
    return {"resourceType": "OperationOutcome", "issue": found or [everything_is_well]}
