"""What a laboratory does about a finding: one sentence each, for the people who build its interface."""

from collections.abc import Mapping

from clinic_lab_integration.hl7.findings import ErrorCode, Finding

_BY_PLACE: Mapping[tuple[ErrorCode, str], str] = {
    (ErrorCode.REQUIRED_FIELD_MISSING, "MSH-9"): "Write the message type into MSH-9: ORU^R01^ORU_R01.",
    (ErrorCode.UNSUPPORTED_MESSAGE_TYPE, "MSH-9.1"): "Send results as ORU^R01; route other types elsewhere.",
    (ErrorCode.UNSUPPORTED_EVENT_CODE, "MSH-9.2"): "Send unsolicited results: the trigger event R01.",
    (ErrorCode.REQUIRED_FIELD_MISSING, "MSH-10"): "Give every message a control id of its own in MSH-10.",
    (
        ErrorCode.REQUIRED_FIELD_MISSING,
        "MSH-11",
    ): "Write P into MSH-11, or T while your connection is in test mode.",
    (
        ErrorCode.UNSUPPORTED_PROCESSING_ID,
        "MSH-11",
    ): "Write P in production and T in test mode; the clinic switches.",
    (ErrorCode.REQUIRED_FIELD_MISSING, "MSH-12"): "Write the version that you send into MSH-12, as 2.5.1.",
    (
        ErrorCode.UNSUPPORTED_VERSION_ID,
        "MSH-12",
    ): "Send one of the versions 2.1 to 2.9, and name it in MSH-12.",
    (ErrorCode.DATA_TYPE_ERROR, "MSH-2"): "Write MSH-1 and MSH-2 as |^~\\& with single characters.",
    (
        ErrorCode.DATA_TYPE_ERROR,
        "MSH-18",
    ): "Name the character set that you write in MSH-18 (table 0211), or none.",
    (ErrorCode.DATA_TYPE_ERROR, "MSH"): "Send no control characters; escape what must be kept as \\X..\\.",
    (
        ErrorCode.SEGMENT_SEQUENCE_ERROR,
        "MSH",
    ): "End each segment with CR; break lines of a text by \\.br\\ or NTE.",
    (ErrorCode.APPLICATION_INTERNAL_ERROR, "MSH"): "Split the message: one report in each.",
    (ErrorCode.SEGMENT_SEQUENCE_ERROR, "OBR"): "Put an OBR before the OBX segments of each report.",
    (ErrorCode.SEGMENT_SEQUENCE_ERROR, "ORC"): "Let the OBR of the same order follow each ORC.",
}
_OTHERWISE = {
    ErrorCode.SEGMENT_SEQUENCE_ERROR: "Order the segments as the standard does for this message.",
    ErrorCode.REQUIRED_FIELD_MISSING: "Fill this field.",
    ErrorCode.DATA_TYPE_ERROR: "Write the value as its data type demands.",
}


def fix_of(finding: Finding) -> str:
    location = finding.location
    field = "" if location.field is None else f"-{location.field}"
    component = "" if location.component is None else f".{location.component}"
    known = _BY_PLACE.get((finding.code, f"{location.segment}{field}{component}"))
    return finding.fix or known or _OTHERWISE.get(finding.code, "Ask the clinic what it expects here.")
