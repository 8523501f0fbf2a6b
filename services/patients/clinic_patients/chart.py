"""What staff write into the chart and read from it; what patients consented to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from types import MappingProxyType
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import ConcealedError, NotFoundError, ReferenceNotYetKnownError
from clinic_shared.ids import uuid7
from clinic_shared.policy import Decision
from clinic_shared.principal import Principal

from clinic_patients import care, chart_store, merge_store, store
from clinic_patients.care_domain import CareRelationship, Carers, of_encounter
from clinic_patients.chart_domain import (
    Consent,
    ConsentStatus,
    Diagnosis,
    Encounter,
    EncounterStatus,
    EncounterTimeError,
    EntryKind,
    PrescribedItem,
    Prescription,
    ReferenceMismatchError,
    TimelineEntry,
    check_diagnoses,
    kinds_open_to,
)
from clinic_patients.chart_store import Position
from clinic_patients.events import consent_event, encounter_event, prescription_event
from clinic_patients.merge_domain import refuse_replaced


@dataclass(frozen=True, kw_only=True)
class RecordEncounter:
    department_id: UUID
    started_at: datetime
    ended_at: datetime | None
    appointment_id: UUID | None
    referral_id: UUID | None
    summary: str | None
    recommendations: str | None
    diagnoses: tuple[Diagnosis, ...]


@dataclass(frozen=True, kw_only=True)
class IssuePrescription:
    department_id: UUID
    encounter_id: UUID | None
    valid_until_on: date | None
    items: tuple[PrescribedItem, ...]


@dataclass(frozen=True, kw_only=True)
class StateConsent:
    kind: str
    channel: str | None
    status: ConsentStatus
    text_version: str
    expires_at: datetime | None


async def record_encounter(
    tx: Transaction, patient_id: UUID, command: RecordEncounter, *, caller: Principal
) -> Encounter:
    """Write a visit into the chart, under the name of the caller."""
    centre_id, decision = await _open_chart(
        tx, patient_id, command.department_id, caller, "encounters.write", _sources_of(command)
    )
    check_diagnoses(command.diagnoses)
    if command.ended_at is not None and command.ended_at < command.started_at:
        raise EncounterTimeError
    await _check_same_patient(tx, patient_id, EntryKind.APPOINTMENT, command.appointment_id)
    await _check_same_patient(tx, patient_id, EntryKind.REFERRAL, command.referral_id)
    encounter = Encounter(
        encounter_id=uuid7(),
        version=1,
        patient_id=patient_id,
        status=EncounterStatus.IN_PROGRESS if command.ended_at is None else EncounterStatus.FINISHED,
        appointment_id=command.appointment_id,
        referral_id=command.referral_id,
        practitioner_id=caller.subject,
        centre_id=centre_id,
        department_id=command.department_id,
        started_at=command.started_at,
        ended_at=command.ended_at,
        recorded_at=tx.now,
        summary=command.summary,
        recommendations=command.recommendations,
        diagnoses=command.diagnoses,
    )
    await chart_store.add_encounter(tx, encounter)
    chart_store.keep_entry(tx, _encounter_entry(encounter))
    await care.keep(tx, [_care_of(encounter)])
    tx.emit(encounter_event(encounter))
    _audit(tx, Action.CREATE, "Encounter", patient_id, decision, encounter.encounter_id)
    return encounter


async def list_encounters(
    tx: Transaction, patient_id: UUID, *, caller: Principal, after: Position | None, limit: int
) -> list[Encounter]:
    records = await _read_chart(tx, patient_id, caller, "Encounter", "chart.read")
    return await chart_store.list_encounters(tx, records, after=after, limit=limit)


async def issue_prescription(
    tx: Transaction, patient_id: UUID, command: IssuePrescription, *, caller: Principal
) -> Prescription:
    """Prescribe, under the name of the caller."""
    centre_id, decision = await _open_chart(
        tx, patient_id, command.department_id, caller, "prescriptions.write"
    )
    if command.encounter_id is not None:
        owner = await chart_store.patient_of_encounter(tx, command.encounter_id)
        if owner != patient_id:
            raise ReferenceMismatchError(
                "There is no such encounter of this patient.", reference="encounter_id"
            )
    prescription = Prescription(
        prescription_id=uuid7(),
        version=1,
        patient_id=patient_id,
        status="active",
        encounter_id=command.encounter_id,
        practitioner_id=caller.subject,
        centre_id=centre_id,
        department_id=command.department_id,
        issued_at=tx.now,
        valid_until_on=command.valid_until_on,
        items=command.items,
    )
    await chart_store.add_prescription(tx, prescription)
    chart_store.keep_entry(tx, _prescription_entry(prescription))
    tx.emit(prescription_event(prescription))
    _audit(tx, Action.CREATE, "MedicationRequest", patient_id, decision, prescription.prescription_id)
    return prescription


async def list_prescriptions(
    tx: Transaction, patient_id: UUID, *, caller: Principal, after: Position | None, limit: int
) -> list[Prescription]:
    records = await _read_chart(tx, patient_id, caller, "MedicationRequest", "chart.read")
    return await chart_store.list_prescriptions(tx, records, after=after, limit=limit)


async def state_consent(
    tx: Transaction, patient_id: UUID, command: StateConsent, *, caller: Principal
) -> Consent:
    """Record what the patient says about one purpose on one channel; the same again changes nothing."""
    decision = await care.permit(tx, patient_id, "consents.write", caller=caller)
    # The patient's row is the lock: two statements about one purpose get two versions in order.
    patient = await store.lock_patient(tx, patient_id)
    if patient is None:
        raise NotFoundError
    refuse_replaced(patient)
    earlier = await chart_store.find_consent(tx, patient_id, command.kind, command.channel)
    said = Consent(
        consent_id=earlier.consent_id if earlier else uuid7(),
        version=earlier.version + 1 if earlier else 1,
        patient_id=patient_id,
        kind=command.kind,
        channel=command.channel,
        status=command.status,
        text_version=command.text_version,
        changed_at=tx.now,
        expires_at=command.expires_at,
    )
    if earlier is not None and earlier.says_the_same_as(said):
        return earlier
    await chart_store.save_consent(tx, said, recorded_by=caller.subject)
    chart_store.keep_entry(tx, _consent_entry(said))
    tx.emit(consent_event(said))
    action = Action.UPDATE if earlier else Action.CREATE
    _audit(tx, action, "Consent", patient_id, decision, said.consent_id)
    return said


async def list_consents(tx: Transaction, patient_id: UUID, *, caller: Principal) -> list[Consent]:
    records = await _read_chart(tx, patient_id, caller, "Consent", "consents.read")
    return await chart_store.list_consents(tx, records)


async def list_timeline(
    tx: Transaction,
    patient_id: UUID,
    *,
    caller: Principal,
    kinds: Sequence[EntryKind],
    after: Position | None,
    limit: int,
) -> list[TimelineEntry]:
    """Return what happened, newest first, of the kinds that the caller asks for and may see."""
    records = await _read_chart(tx, patient_id, caller, "List", "chart.read")
    seen = [kind for kind in kinds_open_to(caller.scopes) if not kinds or kind in kinds]
    return await chart_store.list_entries(tx, records, kinds=seen, after=after, limit=limit)


async def _open_chart(
    tx: Transaction,
    patient_id: UUID,
    department_id: UUID,
    caller: Principal,
    permission: str,
    sources: Mapping[EntryKind, UUID | None] = MappingProxyType({}),
) -> tuple[UUID, Decision]:
    """Let the caller write into a chart, on behalf of a department of theirs; returns its centre, and why.

    `sources` are what the writing serves: the relationship that it rests on may be on its way here with it.
    """
    centre_id = await store.centre_of(tx, department_id)
    if centre_id is None:
        raise ReferenceNotYetKnownError("The department is not known here yet.", reference="department_id")
    caller.require_place(centre_id=centre_id, department_id=department_id)
    try:
        decision = await care.permit(tx, patient_id, permission, caller=caller)
    except ConcealedError:
        await _wait_for(tx, sources)
        raise
    patient = await store.find_patient(tx, patient_id)
    if patient is None:
        raise NotFoundError
    refuse_replaced(patient)
    return centre_id, decision


async def _wait_for(tx: Transaction, sources: Mapping[EntryKind, UUID | None]) -> None:
    """Ask to try again while a source hasn't arrived, whether or not there is such a patient."""
    for kind, source_id in sources.items():
        if source_id is not None and await chart_store.patient_of_entry(tx, kind, source_id) is None:
            raise ReferenceNotYetKnownError(
                f"The {kind.value} is not known here yet.", reference=f"{kind.value}_id"
            )


def _sources_of(command: RecordEncounter) -> Mapping[EntryKind, UUID | None]:
    return {EntryKind.APPOINTMENT: command.appointment_id, EntryKind.REFERRAL: command.referral_id}


async def _read_chart(
    tx: Transaction, patient_id: UUID, caller: Principal, resource_type: str, permission: str
) -> list[UUID]:
    """Let the caller read in a chart; returns the records of the person that it is the chart of."""
    decision = await care.permit(tx, patient_id, permission, caller=caller)
    _audit(tx, Action.READ, resource_type, patient_id, decision)
    return await merge_store.records_of(tx, patient_id)


async def _check_same_patient(
    tx: Transaction, patient_id: UUID, kind: EntryKind, source_id: UUID | None
) -> None:
    """Refuse what is known to be another's. What isn't known yet is taken: a doctor's note can't wait."""
    if source_id is None:
        return
    owner = await chart_store.patient_of_entry(tx, kind, source_id)
    if owner is not None and owner != patient_id:
        raise ReferenceMismatchError(reference=f"{kind.value}_id")


def _care_of(encounter: Encounter) -> CareRelationship:
    carers = Carers(
        practitioner_id=encounter.practitioner_id,
        centre_id=encounter.centre_id,
        department_id=encounter.department_id,
    )
    return of_encounter(
        encounter.encounter_id,
        encounter.version,
        encounter.patient_id,
        carers,
        started_at=encounter.started_at,
        now=encounter.recorded_at,
    )


def _encounter_entry(encounter: Encounter) -> TimelineEntry:
    return TimelineEntry(
        kind=EntryKind.ENCOUNTER,
        source_id=encounter.encounter_id,
        version=encounter.version,
        patient_id=encounter.patient_id,
        status=encounter.status.value,
        occurred_at=encounter.started_at,
        centre_id=encounter.centre_id,
        department_id=encounter.department_id,
        practitioner_id=encounter.practitioner_id,
    )


def _prescription_entry(prescription: Prescription) -> TimelineEntry:
    return TimelineEntry(
        kind=EntryKind.PRESCRIPTION,
        source_id=prescription.prescription_id,
        version=prescription.version,
        patient_id=prescription.patient_id,
        status=prescription.status,
        occurred_at=prescription.issued_at,
        centre_id=prescription.centre_id,
        department_id=prescription.department_id,
        practitioner_id=prescription.practitioner_id,
    )


def _consent_entry(consent: Consent) -> TimelineEntry:
    return TimelineEntry(
        kind=EntryKind.CONSENT,
        source_id=consent.consent_id,
        version=consent.version,
        patient_id=consent.patient_id,
        status=consent.status.value,
        occurred_at=consent.changed_at,
        code=consent.kind,
    )


def _audit(
    tx: Transaction,
    action: Action,
    resource_type: str,
    patient_id: UUID,
    why: Decision,
    resource_id: UUID | None = None,
) -> None:
    tx.audit(
        AuditEntry(
            action=action,
            resource_type=resource_type,
            resource_id=resource_id,
            patient_id=patient_id,
            details=why.explained(),
        )
    )
