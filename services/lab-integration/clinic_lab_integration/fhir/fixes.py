"""What a laboratory does about an issue of a Bundle: one sentence each, for the people who build its interface."""

from collections.abc import Mapping

from clinic_lab_integration.fhir.issues import Issue, Severity

_BY_CODE: Mapping[str, str] = {
    "required": "Give this element.",
    "value": "Write the value as FHIR R4's data type demands.",
    "structure": "Give this element the JSON type that FHIR R4 says.",
    "invalid": "Post a Bundle of type transaction or batch.",
    "not-supported": "Leave this out, or send it as the sentence says.",
    "not-found": "Contain the resource, or put it into the Bundle under the fullUrl that is referred to.",
    "incomplete": "Contain the resource, or put it into the Bundle under the fullUrl that is referred to.",
    "too-long": "Split the Bundle: a few reports in each.",
    "too-costly": "Nest observations less deeply, and split the Bundle.",
}
_BY_PLACE: Mapping[tuple[str, str], str] = {
    (
        "business-rule",
        "tag",
    ): "Mark tests by Bundle.meta.tag HTEST, and nothing else; the clinic switches the mode.",
    ("business-rule", "entry"): "Put a DiagnosticReport into the Bundle, with its Observations.",
}


def fix_of(issue: Issue) -> str:
    if issue.severity is Severity.INFORMATION:
        return "Nothing has to be done."
    last = issue.path.rpartition(".")[2].partition("[")[0]
    known = _BY_PLACE.get((issue.code, last)) or _BY_CODE.get(issue.code)
    return known or "Ask the clinic what it expects here."
