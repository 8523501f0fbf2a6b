"""A Bundle judged: readable or not, taken or refused and why, and the results in it by patient.

What the result itself needs is checked hard: DiagnosticReport and its Observations with status, code,
value, times and references that lead somewhere. What surrounds it (patient, specimen, order, resources
of other types, elements we don't read) is kept with the Bundle and reported; it refuses nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from clinic_shared import strict_json

from clinic_lab_integration.fhir.datatypes import read_date_time
from clinic_lab_integration.fhir.elements import Element
from clinic_lab_integration.fhir.issues import Issue, Severity
from clinic_lab_integration.fhir.references import Entry, References
from clinic_lab_integration.fhir.reports import group_key, read_order, read_patient
from clinic_lab_integration.hl7 import PatientResult, Report

MAX_ENTRIES = 2000
_TAKEN_METHODS = frozenset({"POST", "PUT"})
# What a laboratory sends beside a report; anything else is kept as well, and named.
_SURROUNDINGS = frozenset(
    {
        "Device",
        "Encounter",
        "Location",
        "Observation",
        "Organization",
        "Patient",
        "Practitioner",
        "PractitionerRole",
        "Provenance",
        "ServiceRequest",
        "Specimen",
    }
)
_TEST_TAG = "HTEST"


class UnreadableBundleError(ValueError):
    """The body is no JSON, or no Bundle: `issue` says why. Nothing was kept."""

    def __init__(self, issue: Issue) -> None:
        super().__init__(issue.text)
        self.issue = issue


@dataclass(frozen=True, slots=True)
class AssessedBundle:
    """`refused` are the entries that are not taken: all of them, or in a batch those that are wrong."""

    kind: str
    control_id: str
    is_test: bool
    sent_at: datetime | None
    entry_count: int
    report: Report
    issues: tuple[Issue, ...]
    refused: frozenset[int]

    @property
    def is_refused(self) -> bool:
        """Nothing of it is taken."""
        return not self.report.patients

    @property
    def is_answered_by_entry(self) -> bool:
        """A batch whose entries have an answer each; else one answer says all."""
        as_a_whole = any(one.is_error and ".entry[" not in one.path for one in self.issues)
        return not self.is_refused or (self.kind == "batch" and not as_a_whole)

    def issues_of(self, index: int) -> Iterator[Issue]:
        place = f"Bundle.entry[{index}]"
        return (issue for issue in self.issues if issue.path == place or issue.path.startswith(place + "."))


def assess_bundle(body: bytes, *, test_mode: bool | None = None) -> AssessedBundle:
    """Judge a Bundle. Raises UnreadableBundleError."""
    bundle = Element(_read_json(body), "Bundle", [])
    kind = bundle.text("type")
    if kind not in {"transaction", "batch"}:
        bundle.report("type", "not-supported", "A Bundle that is posted here is a transaction or a batch")
    is_test = _is_test(bundle)
    if test_mode is not None and test_mode != is_test:
        text = (
            "This sender is in test mode, and Bundle.meta.tag has no HTEST"
            if test_mode
            else "This Bundle is marked as a test (HTEST), and this sender is in production"
        )
        bundle.report("meta.tag", "business-rule", text)
    entries, count = _entries(bundle)
    report, refused = _read_reports(bundle, entries, all_or_nothing=kind != "batch")
    return AssessedBundle(
        kind=kind,
        control_id=_control_id(bundle),
        is_test=is_test,
        sent_at=read_date_time(bundle.loosely(), "timestamp").at,
        entry_count=count,
        report=report,
        issues=tuple(dict.fromkeys(bundle.issues)),
        refused=refused,
    )


def _read_json(body: bytes) -> dict[str, Any]:
    try:
        document = strict_json.loads(body.removeprefix(b"\xef\xbb\xbf"), exact=True)
    except strict_json.StrictJSONError as error:
        raise _unreadable("structure", f"The body can't be read: {error.reason}") from None
    if not isinstance(document, dict) or document.get("resourceType") != "Bundle":
        raise _unreadable("invalid", "The body must be a Bundle: put the DiagnosticReport into one")
    return document


def _unreadable(code: str, text: str) -> UnreadableBundleError:
    return UnreadableBundleError(Issue(Severity.ERROR, code, "Bundle", text))


def _control_id(bundle: Element) -> str:
    identifier = bundle.loosely().child("identifier")
    resource_id = bundle.value.get("id")
    return identifier.text("value") if identifier else resource_id if isinstance(resource_id, str) else ""


def _is_test(bundle: Element) -> bool:
    """http://terminology.hl7.org/CodeSystem/v3-ActReason#HTEST: test health data."""
    meta = bundle.loosely().child("meta")
    return any(tag.text("code") == _TEST_TAG for tag in meta.children("tag")) if meta else False


def _entries(bundle: Element) -> tuple[list[Entry], int]:
    every = bundle.children("entry")
    given = bundle.value.get("entry")
    count = len(given) if isinstance(given, list) else 0
    if not every:
        bundle.report("entry", "required", "The Bundle has no entries")
    if count > MAX_ENTRIES:
        bundle.report("entry", "too-long", f"The Bundle has more than {MAX_ENTRIES} entries")
        return [], count
    found = []
    for element in every:
        index = int(element.path.rpartition("[")[2].rstrip("]"))
        resource = element.child("resource")
        if resource is None or not resource.type:
            element.report("resource", "required", "There is no resource with a resourceType")
            continue
        found.append(Entry(index, element.loosely().text("fullUrl"), _method(element), resource))
    return found, count


def _method(entry: Element) -> str:
    request = entry.loosely().child("request")
    if request is None:
        entry.loosely().report("request", "required", "There is no request: taken as POST")
        return "POST"
    method = request.text("method")
    if method not in _TAKEN_METHODS:
        entry.report("request.method", "not-supported", "Results are brought by POST or PUT")
    return method


def _read_reports(
    bundle: Element, entries: list[Entry], *, all_or_nothing: bool
) -> tuple[Report, frozenset[int]]:
    references = References(entries)
    reports = [entry for entry in entries if entry.resource.type == "DiagnosticReport"]
    if entries and not reports:
        bundle.report("entry", "business-rule", "There is no DiagnosticReport, so there is no result to file")
    groups: dict[str, PatientResult] = {}
    refused = _wrong_entries(bundle)
    for entry in reports:
        seen = len(bundle.issues)
        patient = read_patient(entry.resource, references)
        key = group_key(entry.resource, references)
        group = groups.get(key, replace(patient, position=len(groups) + 1))
        order = read_order(entry.resource, references, len(group.orders) + 1)
        if entry.index in refused or any(issue.is_error for issue in bundle.issues[seen:]):
            refused.add(entry.index)
        else:
            groups[key] = replace(group, orders=(*group.orders, order))
    _report_surroundings(entries)
    errors = [issue for issue in bundle.issues if issue.is_error]
    if (all_or_nothing and errors) or any(".entry[" not in issue.path for issue in errors):
        return Report((), ()), frozenset(entry.index for entry in entries)
    return Report(tuple(groups.values()), ()), frozenset(refused | _wrong_entries(bundle))


def _wrong_entries(bundle: Element) -> set[int]:
    paths = (issue.path for issue in bundle.issues if issue.is_error)
    return {int(path[13:].partition("]")[0]) for path in paths if path.startswith("Bundle.entry[")}


def _report_surroundings(entries: list[Entry]) -> None:
    for entry in entries:
        kind = entry.resource.type
        if kind != "DiagnosticReport" and kind not in _SURROUNDINGS:
            text = "Resources of this type are kept with the message, and not read"
            entry.resource.report("", "informational", text, Severity.INFORMATION)
