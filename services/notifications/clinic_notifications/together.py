"""Results of one patient that follow one another: the first is told at once, the others in one message.

What comes within `WINDOW` of a told result waits for its end, and what comes meanwhile joins the message that
waits. Critical results are no business of this module: they go to members of staff, each by itself and at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.events import Origin

from clinic_notifications import announcing, together_store
from clinic_notifications.domain import Purpose, Subject
from clinic_notifications.together_store import Desk, Told

WINDOW = timedelta(minutes=10)


@dataclass(frozen=True)
class _Known:
    """What was told last, and the message that waits and can be joined, if there is one."""

    last: Told | None
    waiting_id: UUID | None


async def read_ahead(tx: Transaction, desks: Iterable[Desk]) -> None:
    """Find out for several desks what was told last, and keep from being sent what others may join."""
    asked = set(desks)
    if not asked:
        return
    last = await together_store.last_told(tx, asked, since=tx.now - WINDOW)
    held = await together_store.hold_back(tx, {told.message_id for told in last.values()}) if last else set()
    for desk in asked:
        told = last.get(desk)
        tx.known[desk] = _Known(told, told.message_id if told and told.message_id in held else None)


async def announce_result(tx: Transaction, about: Subject, desk: Desk) -> None:
    """Tell of a result once: in the message that waits for this patient, or in one of its own."""
    if tx.context.origin is not Origin.LIVE:
        return
    if desk not in tx.known:
        await read_ahead(tx, [desk])
    known: _Known = tx.known[desk]
    if known.waiting_id is not None:
        together_store.join(tx, known.waiting_id, about)
        return
    send_at = known.last.send_at + WINDOW if known.last else tx.now
    tx.known[desk] = replace(known, waiting_id=await _announce_anew(tx, about, desk, send_at=send_at))


async def _announce_anew(tx: Transaction, about: Subject, desk: Desk, *, send_at: datetime) -> UUID | None:
    return await announcing.announce(
        tx,
        purpose=Purpose.RESULT_READY,
        about=about,
        patient_id=desk.patient_id,
        centre_id=desk.centre_id,
        department_id=desk.department_id,
        facts={},
        send_at=send_at,
    )
