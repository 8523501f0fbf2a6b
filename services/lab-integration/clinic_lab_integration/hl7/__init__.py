"""HL7 v2: bytes to messages, messages to results, and the acknowledgement that each is owed.

Pure functions of values. `assess` judges what arrived, `read_report` reads an ORU^R01.
"""

from clinic_lab_integration.hl7.acknowledgement import AckMode
from clinic_lab_integration.hl7.assessment import (
    MAX_MESSAGES,
    MAX_PAYLOAD_BYTES,
    AssessedMessage,
    Assessment,
    Disposition,
    PayloadTooLargeError,
    Terms,
    UnreadablePayloadError,
    assess,
)
from clinic_lab_integration.hl7.charset import Charset, CharsetSource
from clinic_lab_integration.hl7.findings import ErrorCode, Finding, Location, Outcome, Severity
from clinic_lab_integration.hl7.header import Header
from clinic_lab_integration.hl7.model import Message, Repetition, Segment
from clinic_lab_integration.hl7.results import (
    Observation,
    Order,
    PatientResult,
    Report,
    ResultStatus,
    Specimen,
    read_report,
)
from clinic_lab_integration.hl7.rules import MAX_SEGMENTS, PROCESSING_IDS, PRODUCTION, TESTS

__all__ = [
    "MAX_MESSAGES",
    "MAX_PAYLOAD_BYTES",
    "MAX_SEGMENTS",
    "PROCESSING_IDS",
    "PRODUCTION",
    "TESTS",
    "AckMode",
    "AssessedMessage",
    "Assessment",
    "Charset",
    "CharsetSource",
    "Disposition",
    "ErrorCode",
    "Finding",
    "Header",
    "Location",
    "Message",
    "Observation",
    "Order",
    "Outcome",
    "PatientResult",
    "PayloadTooLargeError",
    "Repetition",
    "Report",
    "ResultStatus",
    "Segment",
    "Severity",
    "Specimen",
    "Terms",
    "UnreadablePayloadError",
    "assess",
    "read_report",
]
