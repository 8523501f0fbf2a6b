"""Each patient's messages take effect in the order in which they came: behind one that fails, only its patients wait.

A message that can't be processed is tried again later, and a later one about the same patient would overtake it.
So that one fails too, is tried again later, and woken as soon as something of its laboratory got through. When
the first is given up (parked), the others go on: versions know their order by the laboratory's own times.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.intake import Item, body_of, intake_table
from clinic_shared.intake_order import by_turn, turn_of
from sqlalchemy import Row, select, update

from clinic_lab_integration import matching, stored
from clinic_lab_integration.domain import Identifier
from clinic_lab_integration.matching import Group, Match
from clinic_lab_integration.messages import MessageNote
from clinic_lab_integration.once import once
from clinic_lab_integration.store import Partner

_MOST = 500
_PATIENT = "patient"


class EarlierMessageWaitsError(Exception):
    """An earlier message about the same patient is still to be tried again."""


async def take_turn(
    tx: Transaction, item: Item, partner: Partner, groups: Sequence[Group], matched: Sequence[Match]
) -> None:
    """Let a message take effect only when nothing about its patients waits before it. Raises EarlierMessageWaitsError.

    Those of its laboratory that wait are woken: it may be what they wait for.
    """
    # What this transaction itself has processed still counts: then each is processed by itself, in order.
    read = partial(_failing, tx, partner.partner_id)
    failing = [row for row in await once(tx, ("failing", partner.partner_id), read) if row.id != item.id]
    if not failing:
        return
    mine = _keys(groups, matched)
    for earlier in failing:
        if turn_of(earlier) < turn_of(item) and not mine.isdisjoint(await _keys_of(tx, earlier.id, partner)):
            raise EarlierMessageWaitsError
    await _wake(tx, [row.id for row in failing if row.last_error == EarlierMessageWaitsError.__name__])


async def _failing(tx: Transaction, partner_id: UUID) -> Sequence[Row[Any]]:
    columns = intake_table.c
    return await tx.fetch_all(
        select(columns.id, columns.place, columns.last_error)
        .where(
            columns.state == "received",
            columns.attempts > 0,
            columns.attributes["partner_id"].astext == str(partner_id),
        )
        .order_by(*by_turn(intake_table))
        .limit(_MOST)
    )


def _keys(groups: Sequence[Group], matched: Sequence[Match]) -> set[Identifier]:
    """Everything by which a message can be about the same patient as another."""
    keys = {key for group in groups for key in group.keys}
    return keys | {Identifier(_PATIENT, str(m.whose)) for m in matched if isinstance(m.whose, UUID)}


async def _keys_of(tx: Transaction, message_id: UUID, partner: Partner) -> set[Identifier]:
    row = await tx.fetch_one(select(intake_table).where(intake_table.c.id == message_id))
    if row is None:
        return set()
    note = MessageNote.read(row.attributes)
    try:
        content = stored.read(row.interface, body_of(tx, row), note, partner)
        groups = matching.groups_of(content, partner, message_id=message_id)
    except Exception:  # noqa: BLE001  # what nobody can read is about nobody; it has failed for that
        return set()
    return _keys(groups, [await matching.match_group(tx, partner.partner_id, group) for group in groups])


async def _wake(tx: Transaction, message_ids: Sequence[UUID]) -> None:
    if message_ids:
        await tx.execute(
            update(intake_table)
            .where(intake_table.c.id.in_(message_ids))
            .values(next_attempt_at=tx.shared_now)
        )
