"""What is wrong with a resource, where, in FHIR's words (http://hl7.org/fhir/R4/operationoutcome.html).

Texts are fixed sentences: they travel to the sender and into logs, so they never repeat the resource.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

# The value set issue-type in HL7 table 0357: one list of findings for all messages.
_ERROR_CODES = {"required": 101, "value": 102, "structure": 100, "not-supported": 200, "not-found": 204}
_OTHER_ERROR = 207


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

    @property
    def error_code(self) -> int:
        """Its code in HL7 table 0357."""
        return _ERROR_CODES.get(self.code, _OTHER_ERROR)

    @property
    def is_error(self) -> bool:
        return self.severity is Severity.ERROR

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
