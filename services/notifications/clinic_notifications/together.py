"""Results of one patient that follow one another: the first is told at once, the others in one message.

What comes within `WINDOW` of a told result waits for its end, and what comes meanwhile joins the message that
waits. Critical results are no business of this module: they go to members of staff, each by itself and at once.
"""

from datetime import datetime, timedelta

from clinic_shared.database import Transaction
from clinic_shared.events import Origin

from clinic_notifications import announcing, together_store
from clinic_notifications.domain import Purpose, Subject
from clinic_notifications.together_store import Desk

WINDOW = timedelta(minutes=10)


async def announce_result(tx: Transaction, about: Subject, desk: Desk) -> None:
    """Tell of a result once: in the message that waits for this patient, or in one of its own."""
    if tx.context.origin is not Origin.LIVE:
        return
    if desk not in tx.known:
        last = await together_store.last_told(tx, desk, since=tx.now - WINDOW)
        if last is None or not await together_store.hold_back(tx, last.message_id):
            await _announce_anew(tx, about, desk, send_at=last.send_at + WINDOW if last else tx.now)
            return
        tx.known[desk] = last.message_id
    together_store.join(tx, tx.known[desk], about)


async def _announce_anew(tx: Transaction, about: Subject, desk: Desk, *, send_at: datetime) -> None:
    message_id = await announcing.announce(
        tx,
        purpose=Purpose.RESULT_READY,
        about=about,
        patient_id=desk.patient_id,
        centre_id=desk.centre_id,
        department_id=desk.department_id,
        facts={},
        send_at=send_at,
    )
    if message_id is not None:
        tx.known[desk] = message_id
