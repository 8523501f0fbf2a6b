"""Asking for an export, gathering its parts, taking it out, and its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from clinic_shared import contracts
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.encryption.one_way import new_key_pair
from clinic_shared.errors import NotFoundError
from clinic_shared.exporting import Part, Piece, context_of, opened_part, sealed_pieces
from clinic_shared.ids import uuid7
from clinic_shared.policy import Decision
from clinic_shared.principal import Principal
from clinic_shared.timers import Timer, Timers

from clinic_patients import care, merge_store, sharing
from clinic_patients.events import export_requested_event
from clinic_patients.exports import own_part, store
from clinic_patients.exports.domain import (
    GATHERED_WITHIN,
    KEPT_FOR,
    Export,
    ExportExpiredError,
    ExportState,
    PartState,
    Purpose,
)

timers = Timers()

PERMISSION = "patients.export"
RECORD = "PatientExport"
OWN, UNTIL, EXPIRY = "export-own-part", "export-gather-until", "export-expiry"
SERVICE = "patients"


@dataclass(frozen=True, kw_only=True)
class Asked:
    purpose: Purpose
    reason: str | None
    recipient: str | None


@dataclass(frozen=True, kw_only=True)
class Taken:
    """An export with its parts, opened."""

    export: Export
    states: Mapping[str, PartState]
    parts: Mapping[str, Part]


def contributors() -> tuple[str, ...]:
    """Return the services that have something about patients, this one included."""
    heard = contracts.load().consumed_by(SERVICE)
    return (SERVICE, *(event.producer for event in heard if event.name == "export-part-ready"))


async def ask(
    tx: Transaction,
    patient_id: UUID,
    asked: Asked,
    *,
    installed: tuple[str, ...],
    answered_within: timedelta,
    caller: Principal,
) -> Export:
    """Ask every service for its part. While the caller's last request is being gathered, that is the answer."""
    decision = await care.permit(tx, patient_id, PERMISSION, caller=caller)
    record_ids = await merge_store.records_of(tx, patient_id)
    consent = await _consent(tx, asked.purpose, record_ids)
    running = await store.find_gathering(tx, patient_id, caller.subject)
    if running is not None:
        return running
    private_key, public_key = new_key_pair()
    export = Export(
        export_id=uuid7(),
        patient_id=patient_id,
        record_ids=record_ids,
        state=ExportState.GATHERING,
        for_patient=caller.kind == "patient",
        purpose=asked.purpose,
        reason=asked.reason,
        recipient=asked.recipient,
        requested_by=caller.subject,
        requested_at=tx.now,
        gather_until=tx.now + GATHERED_WITHIN,
        answer_due_at=tx.now + answered_within,
        expires_at=tx.now + KEPT_FOR,
        awaited=[name for name in contributors() if not installed or name in installed],
    )
    await store.add(tx, export, private_key)
    tx.emit(export_requested_event(export, public_key))
    for kind, due_at in ((OWN, tx.now), (UNTIL, export.gather_until), (EXPIRY, export.expires_at)):
        payload = {"public_key": public_key} if kind == OWN else {}
        await tx.schedule(
            Timer(kind=kind, subject=export.export_id, subject_version=1, due_at=due_at, payload=payload)
        )
    _audit(tx, Action.CREATE, export, decision, **consent)
    return export


async def list_own(tx: Transaction, patient_id: UUID, *, caller: Principal) -> list[Export]:
    await care.permit(tx, patient_id, PERMISSION, caller=caller)
    return await store.list_of(tx, patient_id, caller.subject)


async def read(tx: Transaction, patient_id: UUID, export_id: UUID, *, caller: Principal) -> Export:
    """Return an export to whoever asked for it, and to nobody else. Raises NotFoundError."""
    export, _ = await _find(tx, patient_id, export_id, caller)
    return export


async def take_out(
    tx: Transaction, patient_id: UUID, export_id: UUID, *, form: str, caller: Principal
) -> Taken:
    """Open an export; each time is on record. Raises ExportNotReadyError, ExportExpiredError, ConsentMissingError."""
    export, decision = await _find(tx, patient_id, export_id, caller)
    export.require_takeable()
    consent = await _consent(tx, export.purpose, export.record_ids)
    private_key = await store.private_key_of(tx, export_id)
    if private_key is None or export.expires_at <= tx.now:
        raise ExportExpiredError
    states = await states_of(tx, export)
    parts = {
        service: opened_part(private_key, pieces, context_of(export_id, service))
        for service, pieces in (await store.pieces_of(tx, export_id)).items()
        if states[service] is PartState.INCLUDED
    }
    _audit(tx, Action.EXECUTE, export, decision, form=form, **consent)
    return Taken(export=export, states=states, parts=parts)


async def states_of(tx: Transaction, export: Export) -> Mapping[str, PartState]:
    arrived = await store.arrived(tx, [export.export_id])
    return export.parts(arrived.get(export.export_id, {}), contributors())


async def keep_piece(tx: Transaction, export_id: UUID, service: str, piece: Piece) -> None:
    """Keep a piece of a part; when it was the last of all, the export is ready. After its end nothing is kept."""
    export = await store.lock(tx, export_id)
    if export is None or export.state is ExportState.EXPIRED:
        return
    await store.keep_piece(tx, export_id, service, piece)
    arrived = await store.arrived(tx, [export_id])
    if export.is_complete(arrived.get(export_id, {})) and export.state is not ExportState.READY:
        await store.save(tx, replace(export, state=ExportState.READY, completed_at=tx.now))


async def destroy_all_of(tx: Transaction, patient_id: UUID) -> None:
    """End what was gathered before something of the patient was erased, or a merge of theirs undone."""
    for export_id in await store.unexpired_of(tx, patient_id):
        await store.destroy(tx, export_id)


@timers.on(OWN)
async def gather_own(tx: Transaction, timer: Timer) -> None:
    export = await store.lock(tx, timer.subject)
    if export is None or export.state is ExportState.EXPIRED:
        return
    part = await own_part.gather(tx, export)
    for piece in sealed_pieces(part, timer.payload["public_key"], context_of(export.export_id, SERVICE)):
        await keep_piece(tx, export.export_id, SERVICE, piece)


@timers.on(UNTIL)
async def stop_waiting(tx: Transaction, timer: Timer) -> None:
    export = await store.lock(tx, timer.subject)
    if export is not None and export.state is ExportState.GATHERING:
        await store.save(tx, replace(export, state=ExportState.INCOMPLETE))


@timers.on(EXPIRY)
async def expire(tx: Transaction, timer: Timer) -> None:
    export = await store.lock(tx, timer.subject)
    if export is not None and export.state is not ExportState.EXPIRED:
        await store.destroy(tx, export.export_id)
        _audit(tx, Action.DELETE, export)


async def _consent(tx: Transaction, purpose: Purpose, record_ids: Sequence[UUID]) -> dict[str, str]:
    """Return the consent that it rests on, for the audit. Raises ConsentMissingError."""
    if not purpose.needs_consent:
        return {}
    consent = await sharing.require_consent(tx, record_ids)
    return {"consent": str(consent.consent_id), "consent_version": str(consent.version)}


async def _find(
    tx: Transaction, patient_id: UUID, export_id: UUID, caller: Principal
) -> tuple[Export, Decision]:
    decision = await care.permit(tx, patient_id, PERMISSION, caller=caller)
    export = await store.find(tx, export_id)
    if export is None or export.patient_id != patient_id or export.requested_by != caller.subject:
        raise NotFoundError
    return export, decision


def _audit(
    tx: Transaction, action: Action, export: Export, why: Decision | None = None, **details: str
) -> None:
    tx.audit(
        AuditEntry(
            action=action,
            resource_type=RECORD,
            resource_id=export.export_id,
            patient_id=export.patient_id,
            purpose=export.purpose.value,
            reason=export.reason,
            details=details | (why.explained() if why else {}),
        )
    )
