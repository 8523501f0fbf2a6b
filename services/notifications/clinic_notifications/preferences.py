"""How a patient wants to be written to: channels in order, purposes they don't want to hear of."""

from collections.abc import Sequence
from uuid import UUID

from clinic_shared import merges
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import PreconditionFailedError, ReferenceNotYetKnownError
from clinic_shared.policy import Decision
from clinic_shared.principal import Principal

from clinic_notifications import access, store
from clinic_notifications.domain import Channel, Preferences, Purpose

MANAGE = "preferences.manage"


async def read_preferences(tx: Transaction, patient_id: UUID, *, caller: Principal) -> Preferences:
    decision = await access.permit_choice(tx, patient_id, access.READ, caller=caller)
    patient_id = await merges.survivor_of(tx, patient_id)
    await _require_known(tx, patient_id)
    _audit(tx, Action.READ, patient_id, decision)
    return await store.find_preferences(tx, patient_id)


async def set_preferences(
    tx: Transaction,
    patient_id: UUID,
    *,
    channels: Sequence[Channel],
    opted_out: Sequence[Purpose],
    caller: Principal,
    expected_version: int | None,
) -> Preferences:
    """Replace a patient's choice; it counts for every message that isn't sent yet."""
    decision = await access.permit_choice(tx, patient_id, MANAGE, caller=caller)
    patient_id = await merges.survivor_of(tx, patient_id)
    await _require_known(tx, patient_id)
    current = await store.find_preferences(tx, patient_id, lock=True)
    tx.require_version(current.version, expected_version)
    changed = Preferences(
        patient_id=patient_id,
        version=current.version + 1,
        channels=tuple(dict.fromkeys(channels)),
        opted_out=tuple(dict.fromkeys(opted_out)),
    )
    if not await store.save_preferences(tx, changed):
        raise PreconditionFailedError
    _audit(tx, Action.UPDATE, patient_id, decision)
    return changed


async def _require_known(tx: Transaction, patient_id: UUID) -> None:
    if not await store.is_known_patient(tx, patient_id):
        raise ReferenceNotYetKnownError(patient_id=str(patient_id))


def _audit(tx: Transaction, action: Action, patient_id: UUID, why: Decision) -> None:
    tx.audit(
        AuditEntry(
            action=action,
            resource_type="CommunicationPreference",
            resource_id=patient_id,
            patient_id=patient_id,
            details=why.explained(),
        )
    )
