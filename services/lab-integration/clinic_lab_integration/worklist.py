"""What waits for a person, or for a patient or an order to appear: matched again, attached or discarded."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from clinic_shared import merges
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import ForbiddenError, NotFoundError, ReferenceNotYetKnownError
from clinic_shared.ids import uuid7
from clinic_shared.intake import body_of, intake_table
from clinic_shared.principal import Principal
from sqlalchemy import Row, select

from clinic_lab_integration import (
    callbacks,
    candidate_store,
    filing,
    matching,
    store,
    stored,
    unit_store,
)
from clinic_lab_integration.candidates import Candidate, rank
from clinic_lab_integration.domain import (
    Disposition,
    Identifier,
    ParkReason,
)
from clinic_lab_integration.errors import (
    NameMissingError,
    NotParkedError,
    OtherPatientError,
    PossibleDuplicateError,
)
from clinic_lab_integration.events import patient_requested
from clinic_lab_integration.filing import Filing
from clinic_lab_integration.matching import Group, Match
from clinic_lab_integration.messages import MessageNote
from clinic_lab_integration.unit_store import Outcome, Unit

REGISTER = "patients.register"


async def match_again(tx: Transaction, keys: Sequence[Identifier]) -> int:
    """Try the groups that wait for one of these; returns how many were matched."""
    await store.lock_matching(tx, alone=False)
    matched = 0
    for unit in await unit_store.lock_units_wanting(tx, keys):
        group = await read_group(tx, unit)
        found = await matching.match_group(tx, unit.partner_id, group)
        if isinstance(found.whose, ParkReason):
            unit_store.settle_unit(tx, unit, Outcome(Disposition.PARKED, found.whose))
            continue
        matched += 1
        await file_matched(tx, unit, group, found, patient_id=found.whose)
    return matched


async def attach(tx: Transaction, unit_id: tuple[UUID, int], patient_id: UUID, *, caller: Principal) -> Unit:
    """A person says whose results these are. Raises NotFoundError, NotParkedError, OtherPatientError."""
    unit = await _parked(tx, unit_id)
    if unit.patient_id not in (None, patient_id):
        raise OtherPatientError
    patient_id = await merges.survivor_of(tx, patient_id)
    if not await store.is_patient_known(tx, patient_id):
        raise ReferenceNotYetKnownError("The patient is not known here yet.", reference="patient_id")
    group = await read_group(tx, unit)
    await unit_store.note_decision(tx, unit, decided_by=caller.subject)
    found = await matching.match_group(tx, unit.partner_id, group)
    await file_matched(tx, unit, group, found, patient_id=patient_id, decided=True)
    _audit(tx, unit, patient_id, "attached")
    return await current(tx, unit_id)


async def discard(tx: Transaction, unit_id: tuple[UUID, int], reason: str, *, caller: Principal) -> Unit:
    """A person says that a group has no effect. It stays visible, with the reason."""
    unit = await _parked(tx, unit_id)
    await unit_store.want_nothing(tx, unit)
    await unit_store.note_decision(tx, unit, decided_by=caller.subject, reason=reason)
    unit_store.settle_unit(tx, unit, Outcome(Disposition.DISCARDED, patient_id=unit.patient_id))
    _audit(tx, unit, unit.patient_id, "discarded")
    return await current(tx, unit_id)


async def reject(tx: Transaction, unit_id: tuple[UUID, int], reason: str, *, caller: Principal) -> Unit:
    """A person refuses a group: the laboratory has to send it otherwise. It reads why at the message."""
    unit = await _parked(tx, unit_id)
    await unit_store.want_nothing(tx, unit)
    await unit_store.note_decision(tx, unit, decided_by=caller.subject, reason=reason)
    unit_store.settle_unit(
        tx, unit, Outcome(Disposition.REJECTED, "rejected-by-a-person", patient_id=unit.patient_id)
    )
    row = await message_row(tx, unit.message_id)
    await callbacks.tell_rejected(tx, unit, MessageNote.read(row.attributes), reason)
    _audit(tx, unit, unit.patient_id, "rejected")
    return await current(tx, unit_id)


async def leave_with_note(
    tx: Transaction, unit_id: tuple[UUID, int], text: str, *, caller: Principal
) -> Unit:
    """A person has looked at it and says what it waits for."""
    unit = await _parked(tx, unit_id)
    await unit_store.note(tx, unit, text, noted_by=caller.subject)
    _audit(tx, unit, unit.patient_id, "noted")
    return await current(tx, unit_id)


async def list_candidates(tx: Transaction, unit_id: tuple[UUID, int]) -> list[Candidate]:
    """Return whom a parked group may be about, the likeliest first, with the reasons."""
    unit = await _parked(tx, unit_id)
    found = await _candidates(tx, await read_group(tx, unit))
    for candidate in found:
        tx.audit(
            AuditEntry(
                action=Action.READ,
                resource_type="Patient",
                resource_id=candidate.patient_id,
                patient_id=candidate.patient_id,
                details={"as": "candidate"},
            )
        )
    return found


async def _candidates(tx: Transaction, group: Group) -> list[Candidate]:
    known = await candidate_store.find_known(
        tx,
        group.person,
        identifiers=group.identifiers,
        numbers=group.numbers,
        order_numbers=group.order_numbers,
    )
    return rank(group.person, known)


async def create_patient(
    tx: Transaction, unit_id: tuple[UUID, int], *, not_the_same_as: Collection[UUID], caller: Principal
) -> Unit:
    """Let the registry register whom the laboratory names, and attach the group to them.

    The registry does so when it hears of it, under the id that is given here. Raises PossibleDuplicateError
    while somebody who is likely meant isn't ruled out, NameMissingError.
    """
    if not caller.may(REGISTER):
        raise ForbiddenError("Your roles don't include this action.", permission=REGISTER)
    unit = await _parked(tx, unit_id)
    group = await read_group(tx, unit)
    if not group.person.family_key:
        raise NameMissingError
    # Nobody comes in unseen between the look for candidates and the commit.
    await store.lock_matching(tx, alone=True)
    likely = [c for c in await _candidates(tx, group) if c.is_likely and c.patient_id not in not_the_same_as]
    if likely:
        raise PossibleDuplicateError(candidates=[str(c.patient_id) for c in likely])
    patient_id = uuid7()
    await candidate_store.add_requested(tx, patient_id, group.person)
    partner = await store.find_partner(tx, unit.partner_id)
    place = await filing.place_of(tx, None, partner)
    tx.emit(
        patient_requested(
            patient_id,
            group.person,
            group.identifiers,
            unit=unit,
            centre_id=place.centre_id,
            requested_by=caller.subject,
            requested_at=tx.now,
        )
    )
    return await attach(tx, unit_id, patient_id, caller=caller)


async def read_group(tx: Transaction, unit: Unit) -> Group:
    """Read a group out of its message's own bytes."""
    row = await message_row(tx, unit.message_id)
    note = MessageNote.read(row.attributes)
    partner = await store.find_partner(tx, unit.partner_id)
    content = stored.read(unit.interface, body_of(tx, row), note, partner)
    groups = matching.groups_of(content, partner, message_id=unit.message_id)
    return groups[unit.group_index]


async def message_row(tx: Transaction, message_id: UUID) -> Row[Any]:
    message = intake_table.c
    columns = (message.id, message.data_key, message.body, message.attributes)
    row = await tx.fetch_one(select(*columns).where(message.id == message_id))
    if row is None:
        raise NotFoundError
    return row


async def file_matched(
    tx: Transaction, unit: Unit, group: Group, found: Match, *, patient_id: UUID, decided: bool = False
) -> None:
    """File a parked group for its patient, by its numbers or `decided` by a person."""
    await store.lock_patients(tx, [patient_id])
    await unit_store.want_nothing(tx, unit)
    partner = await store.find_partner(tx, unit.partner_id)
    known = await unit_store.list_reports(tx, unit)
    for_whom = Filing(partner, patient_id, found.orders, decided)
    unit_store.settle_unit(tx, unit, await filing.file_reports(tx, unit, group, for_whom, known))


async def _parked(tx: Transaction, unit_id: tuple[UUID, int]) -> Unit:
    unit = await unit_store.lock_unit(tx, *unit_id)
    if unit is None:
        raise NotFoundError
    if unit.disposition is not Disposition.PARKED:
        raise NotParkedError(disposition=unit.disposition.value)
    return unit


async def current(tx: Transaction, unit_id: tuple[UUID, int]) -> Unit:
    unit = await unit_store.lock_unit(tx, *unit_id)
    if unit is None:
        raise NotFoundError
    return unit


def _audit(tx: Transaction, unit: Unit, patient_id: UUID | None, decision: str) -> None:
    tx.audit(
        AuditEntry(
            action=Action.UPDATE,
            resource_type="LabMessage",
            resource_id=f"{unit.message_id}:{unit.group_index}",
            patient_id=patient_id,
            details={"decision": decision},
        )
    )


async def change_incident(tx: Transaction, incident_id: UUID, **values: Any) -> Row[Any]:
    """Raises NotFoundError when there is no such open incident."""
    row = await unit_store.change_incident(tx, incident_id, **values)
    if row is None:
        raise NotFoundError
    tx.audit(AuditEntry(action=Action.UPDATE, resource_type="LabIncident", resource_id=incident_id))
    return row
