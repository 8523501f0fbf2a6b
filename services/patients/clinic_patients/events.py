"""Events out: each carries the aggregate's resulting state (contracts/events/patients)."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from clinic_shared.events import Event, wire_id, wire_instant

from clinic_patients.break_glass_domain import BreakGlass
from clinic_patients.care_domain import CareRelationship
from clinic_patients.chart_domain import (
    ICD_10,
    Consent,
    Encounter,
    Prescription,
    ResultVersion,
)
from clinic_patients.domain import Patient
from clinic_patients.exports.domain import Export
from clinic_patients.merge_domain import Merge, MergeState
from clinic_patients.readings import Reading


def patient_event(name: str, patient: Patient) -> Event:
    """`name` is patient-registered or patient-updated."""
    data: dict[str, object] = {
        "patient_id": str(patient.patient_id),
        "version": patient.version,
        "status": patient.status.value,
        "centre_id": wire_id(patient.centre_id),
        "registered_at": wire_instant(patient.registered_at),
    }
    if name == "patient-updated":
        data["updated_at"] = wire_instant(patient.updated_at)
    return Event(
        type=f"patients.{name}.v1",
        subject=patient.patient_id,
        aggregate_version=patient.version,
        patient_id=patient.patient_id,
        data=data,
        private={
            "name": asdict(patient.name),
            "birth_on": patient.birth_on.isoformat() if patient.birth_on else None,
            "sex": patient.sex.value,
            "phones": list(patient.phones),
            "emails": list(patient.emails),
            "language": patient.language,
            "identifiers": [asdict(identifier) for identifier in patient.identifiers],
        },
    )


def merge_event(merge: Merge) -> Event:
    """A merge that is in force, or was undone. Ordered with what happens to the record that stays."""
    name = "patients-merged" if merge.state is MergeState.APPROVED else "patients-unmerged"
    data: dict[str, object] = {
        "merge_id": str(merge.merge_id),
        "version": merge.version,
        "status": "merged" if merge.state is MergeState.APPROVED else "undone",
        "source_patient_id": str(merge.source_id),
        "target_patient_id": str(merge.target_id),
        "merged_at": wire_instant(merge.decided_at),
    }
    if merge.undone_at is not None:
        data["undone_at"] = wire_instant(merge.undone_at)
    return Event(
        type=f"patients.{name}.v1",
        subject=merge.merge_id,
        aggregate_version=merge.version,
        patient_id=merge.target_id,
        data=data,
    )


def encounter_event(encounter: Encounter) -> Event:
    e = encounter
    return _chart_event(
        "encounter-recorded",
        e.encounter_id,
        e.version,
        e.patient_id,
        data={
            "encounter_id": str(e.encounter_id),
            "status": e.status.value,
            "appointment_id": wire_id(e.appointment_id),
            "referral_id": wire_id(e.referral_id),
            "practitioner_id": str(e.practitioner_id),
            "centre_id": str(e.centre_id),
            "department_id": str(e.department_id),
            "started_at": wire_instant(e.started_at),
            "ended_at": wire_instant(e.ended_at),
            "recorded_at": wire_instant(e.recorded_at),
        },
        private={
            "summary": e.summary,
            "recommendations": e.recommendations,
            "diagnoses": [
                {"code": d.code, "system": ICD_10, "display": d.display, "rank": d.rank.value}
                for d in e.diagnoses
            ],
        },
    )


def prescription_event(prescription: Prescription) -> Event:
    p = prescription
    return _chart_event(
        "prescription-issued",
        p.prescription_id,
        p.version,
        p.patient_id,
        data={
            "prescription_id": str(p.prescription_id),
            "status": p.status,
            "encounter_id": wire_id(p.encounter_id),
            "practitioner_id": str(p.practitioner_id),
            "centre_id": str(p.centre_id),
            "department_id": str(p.department_id),
            "issued_at": wire_instant(p.issued_at),
            "valid_until_on": p.valid_until_on.isoformat() if p.valid_until_on else None,
        },
        private={"items": [asdict(item) for item in p.items]},
    )


def consent_event(consent: Consent) -> Event:
    c = consent
    return _chart_event(
        "consent-changed",
        c.consent_id,
        c.version,
        c.patient_id,
        data={
            "consent_id": str(c.consent_id),
            "kind": c.kind,
            "status": c.status.value,
            "channel": c.channel,
            "text_version": c.text_version,
            "changed_at": wire_instant(c.changed_at),
            "expires_at": wire_instant(c.expires_at),
        },
    )


def result_filed_event(result: ResultVersion) -> Event:
    """Names the lab message's line, so that lab-integration can close it in its ledger."""
    r = result
    return _chart_event(
        "lab-result-filed",
        r.result_id,
        r.version,
        r.patient_id,
        data={
            "result_id": str(r.result_id),
            "status": r.status,
            "partner_id": str(r.partner_id),
            "message_id": str(r.message_id),
            "group_index": r.group_index,
            "report_index": r.report_index,
            "lab_order_id": wire_id(r.lab_order_id),
            "practitioner_id": wire_id(r.practitioner_id),
            "centre_id": wire_id(r.centre_id),
            "department_id": wire_id(r.department_id),
            "filed_at": wire_instant(r.filed_at),
        },
    )


def retracted_result_read_event(result: ResultVersion, readers: Sequence[Reading]) -> Event:
    """Names those who have read an earlier version of what is withdrawn now."""
    r = result
    return _chart_event(
        "retracted-result-read",
        r.result_id,
        r.version,
        r.patient_id,
        data={
            "result_id": str(r.result_id),
            "status": r.status,
            "partner_id": str(r.partner_id),
            "lab_order_id": wire_id(r.lab_order_id),
            "practitioner_id": wire_id(r.practitioner_id),
            "centre_id": wire_id(r.centre_id),
            "department_id": wire_id(r.department_id),
            "retraction_reason_code": r.retraction_reason_code,
            "readers": [
                {
                    "reader_id": str(reading.reader_id),
                    "version": reading.version,
                    "read_at": wire_instant(reading.read_at),
                }
                for reading in readers
            ],
        },
    )


def care_event(of: CareRelationship, *, now: datetime) -> Event:
    """CareRelationshipStarted, or Ended when it is over; one that is still to begin says so."""
    is_over = of.ends_at is not None and of.ends_at <= now
    return _chart_event(
        "care-relationship-ended" if is_over else "care-relationship-started",
        of.relationship_id,
        of.version,
        of.patient_id,
        data={
            "relationship_id": str(of.relationship_id),
            "kind": of.kind.value,
            "source_id": str(of.source_id),
            "practitioner_id": wire_id(of.practitioner_id),
            "centre_id": wire_id(of.centre_id),
            "department_id": wire_id(of.department_id),
            "begins_at": wire_instant(of.begins_at),
            "ends_at": wire_instant(of.ends_at),
        },
    )


def break_glass_event(name: str, of: BreakGlass) -> Event:
    """`name` is break-glass-started, -ended, -reviewed or -overdue. The reason stays here."""
    return _chart_event(
        name,
        of.break_glass_id,
        of.version,
        of.patient_id,
        data={
            "break_glass_id": str(of.break_glass_id),
            "state": of.state.value,
            "staff_id": str(of.staff_id),
            "reason_code": of.reason_code.value,
            "started_at": wire_instant(of.started_at),
            "ends_at": wire_instant(of.ends_at),
            "ended_at": wire_instant(of.ended_at),
            "review_due_at": wire_instant(of.review_due_at),
            "overdue_at": wire_instant(of.overdue_at),
            "verdict": of.verdict.value if of.verdict else None,
            "reviewed_at": wire_instant(of.reviewed_at),
            "reviewed_by": wire_id(of.reviewed_by),
        },
    )


def export_requested_event(of: Export, public_key: str) -> Event:
    """Asks every service for its part; only with the private half of the key can a part be read."""
    return _chart_event(
        "export-requested",
        of.export_id,
        1,
        of.patient_id,
        data={
            "export_id": str(of.export_id),
            "patient_ids": [str(record_id) for record_id in of.record_ids],
            "public_key": public_key,
            "requested_at": wire_instant(of.requested_at),
            "expires_at": wire_instant(of.expires_at),
        },
    )


def _chart_event(
    name: str,
    subject: UUID,
    version: int,
    patient_id: UUID,
    *,
    data: dict[str, object],
    private: dict[str, Any] | None = None,
) -> Event:
    return Event(
        type=f"patients.{name}.v1",
        subject=subject,
        aggregate_version=version,
        patient_id=patient_id,
        data={**data, "patient_id": str(patient_id), "version": version},
        private=private,
    )
