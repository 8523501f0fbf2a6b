"""What people decide about parked items: process again, put a corrected copy in their place, let them be.

Letting be always takes two people: whoever sent the item was told that it was taken.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Row, insert, select, update

from clinic_shared import two_people
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.ids import uuid7
from clinic_shared.inbound.selection import Chosen
from clinic_shared.inbound.tables import decision_table, note
from clinic_shared.intake_store import intake_table, item_of, row_of

RECENT = 50
item = intake_table.c


async def reprocess(
    tx: Transaction, chosen: Chosen, *, reason: str | None, repeatable: Collection[str] = ()
) -> int:
    """Let items be processed again by the release that runs now, in the order in which they came.

    Those that were processed keep the instant of it: they are taken up again, not for the first time.
    """
    rows = await chosen.lock(tx, repeatable=repeatable)
    await tx.execute(
        update(intake_table)
        .where(item.id.in_([row.id for row in rows]))
        .values(state="received", attempts=0, next_attempt_at=tx.shared_now)
    )
    await _decided(tx, rows, "reprocess", reason=reason)
    return len(rows)


async def correct(tx: Transaction, item_id: UUID, body: bytes, *, reason: str) -> UUID:
    """Put a copy with another body in the place of a parked item, and let it be processed. Returns its id."""
    [row] = await Chosen(ids=[item_id]).lock(tx)
    copy_id = uuid7()
    corrected = replace(item_of(tx, row), id=copy_id, body=body)
    await tx.execute(insert(intake_table).values(**row_of(tx, corrected, row.via), corrects=item_id))
    await tx.execute(
        update(intake_table)
        .where(item.id == item_id)
        .values(state="processed", set_aside="superseded", superseded_by=copy_id)
    )
    await _decided(tx, [row], "correct", reason=reason, other_id=copy_id)
    return copy_id


async def ask_to_discard(tx: Transaction, chosen: Chosen, *, reason: str) -> UUID:
    """Ask for a second person's agreement; nothing changes until it is given. Returns the decision's id."""
    rows = await chosen.lock(tx)
    about = {"intake_ids": [row.id for row in rows], "cause": chosen.cause}
    decision_id = await two_people.ask(tx, decision_table, reason=reason, **about)
    await _decided(tx, rows, "ask-to-discard", reason=reason)
    return decision_id


async def approve(tx: Transaction, decision_id: UUID) -> int:
    """Agree as the second person. Raises SelfApprovalError, DecisionIsOverError, SelectionChangedError."""
    decision = await two_people.second(tx, decision_table, decision_id)
    rows = await Chosen(ids=decision.intake_ids).lock(tx)
    await tx.execute(
        update(intake_table)
        .where(item.id.in_([row.id for row in rows]))
        .values(state="processed", set_aside="discarded")
    )
    await two_people.close(tx, decision_table, decision_id, "approved", None)
    await _decided(tx, rows, "discard", reason=decision.reason)
    return len(rows)


async def reject(tx: Transaction, decision_id: UUID, *, reason: str) -> None:
    """Refuse, or withdraw one's own request. The items stay as they are."""
    decision = await two_people.open_one(tx, decision_table, decision_id)
    await two_people.close(tx, decision_table, decision_id, "rejected", reason)
    note(
        tx,
        *decision.intake_ids,
        step="discard rejected",
        decided_by=tx.context.principal.subject,
        reason=reason,
    )
    _audit(tx, "InboundMessageDecision", decision_id, "reject", reason)


async def listed(tx: Transaction) -> Sequence[Row[Any]]:
    """Return the latest requests to discard, the newest first."""
    statement = select(decision_table).order_by(decision_table.c.requested_at.desc()).limit(RECENT)
    return await tx.fetch_all(statement)


async def _decided(
    tx: Transaction,
    rows: Sequence[Row[Any]],
    decision: str,
    *,
    reason: str | None,
    other_id: UUID | None = None,
) -> None:
    person = tx.context.principal.subject
    ids = [row.id for row in rows]
    note(tx, *ids, step=decision, decided_by=person, reason=reason, other_id=other_id)
    for item_id in ids:
        _audit(tx, "InboundMessage", item_id, decision, reason)


def _audit(tx: Transaction, kind: str, about: UUID, decision: str, reason: str | None) -> None:
    tx.audit(
        AuditEntry(
            action=Action.EXECUTE,
            resource_type=kind,
            resource_id=about,
            reason=reason,
            details={"decision": decision},
        )
    )
