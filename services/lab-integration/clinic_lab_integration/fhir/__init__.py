"""FHIR R4 results: a Bundle to the same values that `hl7` reads out of an ORU^R01. Pure."""

from clinic_lab_integration.fhir.answers import MEDIA_TYPE, answer, refusal, status_of
from clinic_lab_integration.fhir.assessment import AssessedBundle, UnreadableBundleError, assess_bundle
from clinic_lab_integration.fhir.fixes import fix_of
from clinic_lab_integration.fhir.issues import Issue, Severity, operation_outcome

__all__ = [
    "MEDIA_TYPE",
    "AssessedBundle",
    "Issue",
    "Severity",
    "UnreadableBundleError",
    "answer",
    "assess_bundle",
    "fix_of",
    "operation_outcome",
    "refusal",
    "status_of",
]
