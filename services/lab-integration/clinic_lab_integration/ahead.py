"""What a batch of messages asks of the database, asked at once for all of them before the first takes effect.

Kept up with what the batch itself changes: a report's newest version is known here before it is written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.intake import Item

from clinic_lab_integration import matching, messages, result_store, store, stored
from clinic_lab_integration.domain import ParkReason, ReportVersion, ResultId
from clinic_lab_integration.matching import Group, Match
from clinic_lab_integration.messages import MessageNote
from clinic_lab_integration.once import once
from clinic_lab_integration.result_store import Known, ResultKey
from clinic_lab_integration.store import Partner

_KEY = "ahead"


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """What is known of one message. `groups` and `found` are empty for what is matched with nobody."""

    note: MessageNote
    earlier_id: UUID | None
    partner: Partner | None
    groups: Sequence[Group] = ()
    found: Sequence[Match] = ()


@dataclass
class _Read:
    messages: dict[UUID, Ahead] = field(default_factory=dict)
    results: dict[ResultKey, Known] = field(default_factory=dict)


def _read(tx: Transaction) -> _Read:
    read: _Read = tx.known.setdefault(_KEY, _Read())
    return read


async def of_message(tx: Transaction, item: Item, *, parks_test_messages: bool) -> Ahead:
    """Return what is known of a message; read now where it wasn't read ahead."""
    if item.id not in _read(tx).messages:
        await read_ahead(tx, [item], parks_test_messages=parks_test_messages)
    return _read(tx).messages[item.id]


async def read_ahead(tx: Transaction, items: Sequence[Item], *, parks_test_messages: bool) -> None:
    """Read messages and what is known of whom they are about. Their patients are locked from now on."""
    notes = {item.id: MessageNote.read(item.attributes) for item in items}
    earlier = await messages.find_earlier(
        tx, [message_id for message_id in notes if notes[message_id].is_named]
    )
    partners = {item.id: await _partner(tx, notes[item.id]) for item in items}
    groups: dict[UUID, list[Group]] = {}
    for item in items:
        note, partner = notes[item.id], partners[item.id]
        if note.is_accepted and not note.sandbox:
            content = stored.read(item.interface, item.body, note, partner)
            groups[item.id] = matching.groups_of(content, partner, message_id=item.id)
    found = await _match(tx, notes, groups, parks_test_messages=parks_test_messages)
    for message_id, note in notes.items():
        _read(tx).messages[message_id] = Ahead(
            note=note,
            earlier_id=earlier.get(message_id),
            partner=partners[message_id],
            groups=groups.get(message_id, ()),
            found=found.get(message_id, ()),
        )
    await _read_results(tx, notes, groups, found)


async def _partner(tx: Transaction, note: MessageNote) -> Partner | None:
    partner_id = UUID(note.partner_id)
    return await once(tx, ("partner", partner_id), partial(store.find_partner, tx, partner_id))


async def _match(
    tx: Transaction,
    notes: Mapping[UUID, MessageNote],
    groups: Mapping[UUID, Sequence[Group]],
    *,
    parks_test_messages: bool,
) -> dict[UUID, list[Match]]:
    """Whose the groups are, at first sight: who is unmatched is looked for again when their turn comes."""
    found: dict[UUID, list[Match]] = {}
    asked: list[tuple[UUID, UUID, Group]] = []
    for message_id, of_one in groups.items():
        note = notes[message_id]
        if note.is_test and parks_test_messages:
            found[message_id] = [Match(ParkReason.NOT_FOR_PRODUCTION)] * len(of_one)
        else:
            found[message_id] = []
            asked += [(message_id, UUID(note.partner_id), group) for group in of_one]
    matches = await matching.match_groups(tx, [(partner_id, group) for _, partner_id, group in asked])
    for (message_id, _, _), match in zip(asked, matches, strict=True):
        found[message_id].append(match)
    return found


async def _read_results(
    tx: Transaction,
    notes: Mapping[UUID, MessageNote],
    groups: Mapping[UUID, Sequence[Group]],
    found: Mapping[UUID, Sequence[Match]],
) -> None:
    keys = [
        (UUID(notes[message_id].partner_id), match.whose, sent.key)
        for message_id, of_one in groups.items()
        for group, match in zip(of_one, found[message_id], strict=True)
        if isinstance(match.whose, UUID)
        for sent in group.reports
    ]
    await store.lock_patients(tx, (patient_id for _, patient_id, _ in keys))
    _read(tx).results.update(await result_store.find_results(tx, list(dict.fromkeys(keys))))


# -- results, as the transaction leaves them


async def known_result(tx: Transaction, key: ResultKey) -> Known:
    """Return a report as it is known. Its patient is locked."""
    results = _read(tx).results
    if key not in results:
        results[key] = await result_store.find_result(tx, key)
    return results[key]


def note_version(tx: Transaction, key: ResultKey, result_id: ResultId, new: ReportVersion) -> None:
    _read(tx).results[key] = (result_id, new)
