"""DiagnosticReport resources as the orders of a patient group, and Patient resources as its patient."""

from collections.abc import Iterator

from clinic_lab_integration.fhir.datatypes import (
    NO_CODE,
    NOTHING,
    read_concept,
    read_date_time,
    read_identifier,
    read_order_number,
)
from clinic_lab_integration.fhir.elements import Element
from clinic_lab_integration.fhir.issues import Severity
from clinic_lab_integration.fhir.observations import ObservationReader
from clinic_lab_integration.fhir.references import References
from clinic_lab_integration.hl7 import Observation, Order, PatientResult, ResultStatus, Specimen
from clinic_lab_integration.hl7.datatypes import (
    EncapsulatedData,
    EntityIdentifier,
    PatientIdentifier,
    ReferencePointer,
    Timestamp,
    Value,
)

# http://hl7.org/fhir/R4/valueset-diagnostic-report-status.html
STATUSES = {
    "registered": ResultStatus.REGISTERED,
    "partial": ResultStatus.PARTIAL,
    "preliminary": ResultStatus.PRELIMINARY,
    "final": ResultStatus.FINAL,
    "amended": ResultStatus.AMENDED,
    "corrected": ResultStatus.CORRECTED,
    "appended": ResultStatus.AMENDED,
    "cancelled": ResultStatus.CANCELLED,
    "entered-in-error": ResultStatus.ENTERED_IN_ERROR,
    "unknown": ResultStatus.PRELIMINARY,
}
_SEXES = {"female": "F", "male": "M", "other": "O", "unknown": "U"}


def subject_of(report: Element, references: References) -> Element | None:
    """The Patient resource that a report is about, where the sender put it beside the report."""
    subject = report.child("subject")
    return references.resolve(subject, report) if subject is not None and subject.has("reference") else None


def read_order(report: Element, references: References, position: int) -> Order:
    subject = subject_of(report, references)
    observations = (
        *ObservationReader(references, report, subject).read(),
        *_documents(report),
    )
    given = report.text("status")
    if given not in STATUSES:
        code = "value" if given else "required"
        report.report("status", code, "This must be a code of the value set diagnostic-report-status")
    service = read_concept(report.child("code"))
    if not service.text:
        report.report("code", "required", "A report without a code, or words for it, says nothing")
    return Order(
        position=position,
        order_control="RE",
        placer=_placer(report, references),
        filler=_filler(report),
        parent=None,
        service=service,
        status_code=given,
        status=STATUSES.get(given, ResultStatus.PRELIMINARY),
        observed_at=_observed_at(report),
        reported_at=read_date_time(report, "issued"),
        observations=observations,
        specimens=tuple(_specimens(report, references)),
        notes=tuple(_notes(report)),
    )


def _observed_at(report: Element) -> Timestamp:
    period = report.child("effectivePeriod")
    if period is not None:
        return read_date_time(period, "start")
    return read_date_time(report, "effectiveDateTime")


def _filler(report: Element) -> EntityIdentifier | None:
    """The laboratory's number of the report; its id, where it has given no other."""
    numbers = (read_order_number(one) for one in report.children("identifier"))
    resource_id = report.value.get("id")
    by_id = EntityIdentifier(resource_id, "DiagnosticReport") if isinstance(resource_id, str) else None
    return next((number for number in numbers if number), by_id)


def _placer(report: Element, references: References) -> EntityIdentifier | None:
    """The number of the order that the report answers, out of the reference or the ServiceRequest itself."""
    for based_on in report.children("basedOn"):
        logical = based_on.child("identifier")
        order = references.resolve(based_on, report) if based_on.has("reference") else None
        identifiers = [logical] if logical else []
        identifiers += order.loosely().children("identifier") if order else []
        for identifier in identifiers:
            if number := read_order_number(identifier):
                return number
    return None


def _documents(report: Element) -> Iterator[Observation]:
    """What the report looks like (`presentedForm`), as the embedded documents that they are."""
    for number, form in enumerate(report.children("presentedForm"), 1):
        media_type, _, subtype = form.text("contentType").partition("/")
        value: Value = ReferencePointer(form.text("url"), media_type, subtype)
        if form.has("data"):
            value = EncapsulatedData(media_type, subtype, "Base64", form.text("data"))
        yield Observation(
            position=number,
            value_type="ED" if form.has("data") else "RP",
            code=read_concept(report.child("code")),
            sub_id=f"document-{number}",
            values=(value,),
            units=NO_CODE,
            reference_range="",
            flags=(),
            status_code="F",
            status=ResultStatus.FINAL,
            observed_at=NOTHING,
            performer="",
            notes=tuple(filter(None, [form.text("title")])),
        )


def _specimens(report: Element, references: References) -> Iterator[Specimen]:
    for reference in report.loosely().children("specimen"):
        found = references.resolve(reference, report)
        if found is None or found.type != "Specimen":
            reference.report(
                "reference", "not-found", "The Specimen is not in the Bundle: nothing is known of it"
            )
            continue
        specimen = found.loosely()
        collection = specimen.child("collection")
        identifiers = (one.text("value") for one in specimen.children("identifier"))
        yield Specimen(
            identifier=next(filter(None, identifiers), ""),
            type=read_concept(specimen.child("type")),
            collected_at=read_date_time(collection, "collectedDateTime") if collection else NOTHING,
            received_at=read_date_time(specimen, "receivedTime"),
            observations=(),
            notes=(),
        )


def _notes(report: Element) -> Iterator[str]:
    if report.has("conclusion"):
        yield report.text("conclusion")
    for one in report.loosely().children("conclusionCode"):
        if words := read_concept(one).text:
            yield words


# -- whose


def group_key(report: Element, references: References) -> str:
    """Equal for reports of one patient; a report without a subject stands alone."""
    patient = subject_of(report, references)
    if patient is not None:
        return patient.path
    subject = report.loosely().child("subject")
    if subject is None:
        return report.path
    identifier = subject.child("identifier")
    number = read_identifier(identifier) if identifier else None
    return f"{number or subject.text('reference') or report.path}"


def read_patient(report: Element, references: References) -> PatientResult:
    """Whose a report is, without its results. Says so where nobody could find out."""
    patient = subject_of(report, references)
    found = patient.loosely() if patient else None
    identifiers = tuple(_identifiers(report, found))
    _report_unknown_subject(report, references, is_known=bool(identifiers))
    names = found.children("name") if found else []
    name = names[0] if names else None
    given = name.texts("given") if name else []
    return PatientResult(
        position=0,
        has_patient=found is not None,
        identifiers=identifiers,
        family_name=name.text("family") if name else "",
        given_name=given[0] if given else "",
        middle_name=" ".join(given[1:]),
        birth_on=read_date_time(found, "birthDate").on if found else None,
        sex=_SEXES.get(found.text("gender"), "") if found else "",
        visit=None,
        orders=(),
        observations=(),
        notes=(),
    )


def _identifiers(report: Element, patient: Element | None) -> Iterator[PatientIdentifier]:
    subject = report.loosely().child("subject")
    logical = subject.child("identifier") if subject else None
    every = [logical] if logical else []
    every += patient.children("identifier") if patient else []
    for one in every:
        if number := read_identifier(one):
            yield number


def _report_unknown_subject(report: Element, references: References, *, is_known: bool) -> None:
    subject = report.child("subject")
    ordered = _placer(report, references) is not None
    if subject is None and not ordered:
        report.report("subject", "required", "There is neither a subject nor an order number (basedOn)")
    elif not is_known and not ordered:
        text = "No identifier of the patient is in the Bundle: a person has to say whose this is"
        report.report("subject", "incomplete", text, Severity.WARNING)
