"""Opening a record in an emergency, ending it, judging it.

It makes a care relationship and nothing else, so every other rule stays. That it is told to the privacy
officer and stands in the audit commits with it: no record is opened unseen.
"""

from datetime import datetime
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import NotFoundError
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.timers import Timer, Timers

from clinic_patients import break_glass_store, care
from clinic_patients.break_glass_domain import (
    STARTS_A_DAY,
    UNREVIEWED,
    BreakGlass,
    BreakGlassState,
    BreakGlassSuspendedError,
    ReasonCode,
    Verdict,
)
from clinic_patients.events import break_glass_event

timers = Timers()

END, REVIEW = "break-glass-end", "break-glass-review"
STARTED, STOPPED = "110127", "110138"
"""DICOM PS3.16, CID 403: emergency override started, stopped."""


async def start(
    tx: Transaction, patient_id: UUID, *, reason_code: ReasonCode, reason: str, caller: Principal
) -> BreakGlass:
    """Open the record for an hour; after several of late, only once a second clinician agrees."""
    decision = await care.permit(tx, patient_id, "break-glass.start", caller=caller)
    await break_glass_store.lock_person(tx, caller.subject)
    if await break_glass_store.is_suspended(tx, caller.subject):
        raise BreakGlassSuspendedError
    asked = BreakGlass(
        break_glass_id=uuid7(),
        version=1,
        state=BreakGlassState.REQUESTED,
        patient_id=patient_id,
        staff_id=caller.subject,
        reason_code=reason_code,
        reason=reason,
        requested_at=tx.now,
    )
    await break_glass_store.add(tx, asked)
    if await _needs_second_person(tx, caller.subject):
        _audit(tx, asked, decision=decision.reason, state=asked.state.value)
        return asked
    return await _open(tx, asked.started(tx.now))


async def approve(tx: Transaction, break_glass_id: UUID, *, caller: Principal) -> BreakGlass:
    """Agree, as a second clinician, to what a colleague has asked for."""
    asked = await _lock(tx, break_glass_id)
    return await _open(tx, asked.started(tx.now, approved_by=caller.subject))


async def end(tx: Transaction, break_glass_id: UUID, *, caller: Principal) -> BreakGlass:
    """Close the record before its hour is over; only whoever opened it does."""
    opened = await _lock(tx, break_glass_id)
    if opened.staff_id != caller.subject:
        raise NotFoundError
    return await _close(tx, opened, tx.now)


async def review(
    tx: Transaction, break_glass_id: UUID, *, verdict: Verdict, comment: str, caller: Principal
) -> BreakGlass:
    ended = await _lock(tx, break_glass_id)
    judged = ended.reviewed(verdict, comment, by=caller.subject, now=tx.now)
    await _save(tx, judged, "break-glass-reviewed")
    _audit(tx, judged, verdict=verdict.value)
    return judged


async def list_for_review(
    tx: Transaction, *, state: BreakGlassState | None, after: tuple[datetime, UUID] | None, limit: int
) -> list[BreakGlass]:
    found = await break_glass_store.list_open(tx, state=state, after=after, limit=limit)
    for one in found:
        _audit(tx, one, action=Action.READ)
    return found


async def list_of_patient(tx: Transaction, patient_id: UUID, *, caller: Principal) -> list[BreakGlass]:
    """Return who opened the record in an emergency; the patient is told a day later."""
    decision = await care.permit(tx, patient_id, "access-log.read", caller=caller)
    tx.audit(
        AuditEntry(
            action=Action.READ,
            resource_type="BreakGlass",
            patient_id=patient_id,
            details=decision.explained(),
        )
    )
    found = await break_glass_store.list_of_patient(tx, patient_id)
    if caller.kind == "patient":
        return [one for one in found if one.is_told_to_the_patient(tx.now)]
    return found


@timers.on(END)
async def end_when_over(tx: Transaction, timer: Timer) -> None:
    """The relationship is over by itself; this says so, later too when nothing ran at the moment."""
    opened = await break_glass_store.lock(tx, timer.subject)
    if opened is not None and opened.state is BreakGlassState.ACTIVE:
        await _close(tx, opened, opened.ends_at or tx.now)


@timers.on(REVIEW)
async def complain_when_unreviewed(tx: Transaction, timer: Timer) -> None:
    opened = await break_glass_store.lock(tx, timer.subject)
    if opened is not None and opened.state is not BreakGlassState.REVIEWED:
        await _save(tx, opened.overdue(tx.now), "break-glass-overdue")


async def _needs_second_person(tx: Transaction, staff_id: UUID) -> bool:
    return (
        await break_glass_store.count_recent(tx, staff_id) >= STARTS_A_DAY
        or await break_glass_store.count_unreviewed(tx, staff_id) >= UNREVIEWED
    )


async def _open(tx: Transaction, opened: BreakGlass) -> BreakGlass:
    await _save(tx, opened, "break-glass-started")
    await care.keep(tx, [opened.care()])
    for kind, due_at in ((END, opened.ends_at), (REVIEW, opened.review_due_at)):
        assert due_at is not None  # noqa: S101  # of what has started
        await tx.schedule(Timer(kind=kind, subject=opened.break_glass_id, subject_version=1, due_at=due_at))
    _audit(tx, opened, code=STARTED, reason_code=opened.reason_code.value)
    return opened


async def _close(tx: Transaction, opened: BreakGlass, at: datetime) -> BreakGlass:
    closed = opened.ended(at)
    await _save(tx, closed, "break-glass-ended")
    await care.keep(tx, [closed.care()])
    _audit(tx, closed, code=STOPPED)
    return closed


async def _lock(tx: Transaction, break_glass_id: UUID) -> BreakGlass:
    found = await break_glass_store.lock(tx, break_glass_id)
    if found is None:
        raise NotFoundError
    return found


async def _save(tx: Transaction, changed: BreakGlass, event: str) -> None:
    await break_glass_store.save(tx, changed)
    tx.emit(break_glass_event(event, changed))


def _audit(tx: Transaction, of: BreakGlass, *, action: Action = Action.EXECUTE, **details: str) -> None:
    """`purpose` is HL7's ActReason BTG: what was done under it stands out in any list."""
    tx.audit(
        AuditEntry(
            action=action,
            resource_type="BreakGlass",
            resource_id=of.break_glass_id,
            patient_id=of.patient_id,
            details={"purpose": "BTG", **details},
        )
    )
