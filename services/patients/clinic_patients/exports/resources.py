"""The chart as FHIR R4 resources, for exports. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any

from clinic_shared.exporting import concept, fhir_status, present, reference

from clinic_patients.chart_domain import (
    ICD_10,
    Consent,
    Diagnosis,
    DiagnosisRank,
    Encounter,
    Observation,
    PrescribedItem,
    Prescription,
    ResultVersion,
)

_ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
_SCOPE = "http://terminology.hl7.org/CodeSystem/consentscope"


def consent(of: Consent, history: Iterable[Any]) -> dict[str, Any]:
    """The statements before the last one stand as extensions: R4's Consent has one status."""
    said = [
        {
            "url": "urn:polyclinic:consent-statement",
            "extension": [
                {"url": "version", "valueInteger": one.version},
                {"url": "status", "valueCode": one.status},
                {"url": "text", "valueString": one.text_version},
                {"url": "at", "valueInstant": one.changed_at},
            ],
        }
        for one in history
    ]
    return present(
        resourceType="Consent",
        id=of.consent_id,
        extension=said,
        status=fhir_status("consent", of.status.value),
        scope=concept(None, (_SCOPE, "patient-privacy")),
        category=[concept(of.kind)],
        patient=reference("Patient", of.patient_id),
        dateTime=of.changed_at,
        policyRule=concept(of.text_version),
        provision=present(
            type="permit" if of.status.value == "granted" else "deny",
            period=present(end=of.expires_at),
            purpose=[{"display": " ".join(filter(None, (of.kind, of.channel)))}],
        ),
    )


def encounter(of: Encounter) -> dict[str, Any]:
    notes = [text for text in (of.summary, of.recommendations) if text]
    return present(
        resourceType="Encounter",
        id=of.encounter_id,
        text=None,
        extension=[{"url": "urn:polyclinic:note", "valueString": text} for text in notes],
        status=fhir_status("encounter", of.status.value),
        subject=reference("Patient", of.patient_id),
        period=present(start=of.started_at, end=of.ended_at),
        appointment=[reference("Appointment", of.appointment_id)] if of.appointment_id else None,
        participant=[{"individual": reference("Practitioner", of.practitioner_id)}],
        location=[{"location": reference("Location", of.centre_id)}],
        serviceProvider=reference("Organization", of.department_id),
        **{"class": {"system": _ACT_CODE, "code": "AMB"}},
    )


def condition(visit: Encounter, of: Diagnosis, number: int) -> dict[str, Any]:
    return present(
        resourceType="Condition",
        id=f"{visit.encounter_id}-{number}",
        code=concept(of.display, (ICD_10, of.code)),
        category=[
            concept("primary diagnosis" if of.rank is DiagnosisRank.PRIMARY else "secondary diagnosis")
        ],
        subject=reference("Patient", visit.patient_id),
        encounter=reference("Encounter", visit.encounter_id),
        recordedDate=visit.recorded_at,
        recorder=reference("Practitioner", visit.practitioner_id),
    )


def medication_request(of: Prescription, item: PrescribedItem, number: int) -> dict[str, Any]:
    dosage = "; ".join(filter(None, (item.dose, item.route, item.frequency, item.instructions)))
    days = item.duration_days
    return present(
        resourceType="MedicationRequest",
        id=f"{of.prescription_id}-{number}",
        groupIdentifier={"value": str(of.prescription_id)},
        status=fhir_status("prescription", of.status),
        intent="order",
        medicationCodeableConcept=concept(item.medication, (item.system, item.code)),
        subject=reference("Patient", of.patient_id),
        encounter=reference("Encounter", of.encounter_id),
        authoredOn=of.issued_at,
        requester=reference("Practitioner", of.practitioner_id),
        dosageInstruction=[{"text": dosage}] if dosage else None,
        dispenseRequest=present(
            validityPeriod=present(end=of.valid_until_on),
            expectedSupplyDuration={"value": days, "unit": "d"} if days else None,
        ),
    )


def diagnostic_report(of: ResultVersion, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return present(
        resourceType="DiagnosticReport",
        id=f"{of.result_id}-{of.version}",
        identifier=[
            {"value": number} for number in (of.placer_order_number, of.filler_order_number) if number
        ],
        basedOn=[reference("ServiceRequest", of.lab_order_id)] if of.lab_order_id else None,
        status=fhir_status("lab-result", of.status),
        code=concept(of.report_display, (of.report_system, of.report_code)),
        subject=reference("Patient", of.patient_id),
        effectiveDateTime=of.collected_at,
        issued=of.reported_at or of.received_at,
        performer=[reference("Organization", of.partner_id)],
        result=[{"reference": f"Observation/{line['id']}"} for line in lines],
        conclusion="\n".join(filter(None, (of.conclusion, *of.notes))),
    )


def observation(report: ResultVersion, of: Observation, number: int) -> dict[str, Any]:
    """Values stay the text that the laboratory wrote: a number that we made of it might say something else."""
    value = " ".join(filter(None, (of.value, of.units)))
    return present(
        resourceType="Observation",
        id=f"{report.result_id}-{report.version}-{number}",
        status=fhir_status("lab-result", report.status),
        code=concept(of.display, (of.system, of.code)) or {"text": "unnamed"},
        subject=reference("Patient", report.patient_id),
        effectiveDateTime=of.observed_at,
        valueString=value,
        interpretation=[concept(text) for text in of.interpretation],
        referenceRange=[{"text": of.reference_range}] if of.reference_range else None,
        note=[{"text": text} for text in of.notes],
    )
