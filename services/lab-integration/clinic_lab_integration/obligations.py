"""Obligations: what somebody here has to answer for, with an owner, a deadline and whoever is asked next.

They end by being acknowledged, and in no other way: a timer asks the next one for as long as nobody answers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import (
    ConcealedError,
    DomainError,
    InvalidRequestError,
    NotFoundError,
    ReferenceNotYetKnownError,
)
from clinic_shared.ids import uuid7
from clinic_shared.metrics import REGISTRY
from clinic_shared.principal import Principal
from clinic_shared.service import Runtime
from clinic_shared.timers import Timer, Timers
from prometheus_client import Gauge

from clinic_lab_integration import obligation_store, result_store, store
from clinic_lab_integration.domain import RETRACTED, ObservationState, ReportVersion, new_criticals
from clinic_lab_integration.escalation import (
    Duty,
    ObligationKind,
    ObligationStatus,
    OwnerRole,
    Rung,
    ladder,
    next_rung,
)
from clinic_lab_integration.events import Place, critical_event, obligation_assigned
from clinic_lab_integration.hl7 import ResultStatus
from clinic_lab_integration.obligation_store import Obligation, Shown
from clinic_lab_integration.once import once
from clinic_lab_integration.store import CRITICAL_ACKNOWLEDGE_SECONDS, Partner

timers = Timers()

TIMER = "lab-obligation"
REVIEW_SECONDS = 3 * 86400
RETRACTION_SECONDS = 4 * 3600

WAITING = Gauge(
    "clinic_lab_obligations",
    "Results that somebody has to answer for and nobody has answered for",
    ["kind"],
    registry=REGISTRY,
)
OVERDUE = Gauge(
    "clinic_lab_obligations_overdue", "Of those: past their first deadline", ["kind"], registry=REGISTRY
)


class AlreadyAcknowledgedError(DomainError):
    """Who was first has answered."""

    slug = "already-acknowledged"
    title = "Somebody has answered for this result already"
    fix = "The problem says who and when; read the list again."


@dataclass(frozen=True, kw_only=True)
class About:
    """The version of a result that an obligation is about."""

    result_id: UUID
    result_version: int
    patient_id: UUID
    partner_id: UUID


# -- raising


async def watch(
    tx: Transaction,
    about: About,
    known: ReportVersion,
    new: ReportVersion,
    *,
    place: Place,
    partner: Partner | None,
) -> None:
    """Find somebody for a version that can't wait, or that nobody waits for."""
    critical = new_criticals(known, new)
    if critical:
        seconds = partner.critical_acknowledge_seconds if partner else CRITICAL_ACKNOWLEDGE_SECONDS
        await _oblige(tx, ObligationKind.CRITICAL, about, place, seconds=seconds, observations=critical)
    elif place.practitioner_id is None and await _lacks_a_reader(tx, about, known, new):
        await _oblige(tx, ObligationKind.REVIEW, about, place, seconds=REVIEW_SECONDS)


async def _lacks_a_reader(tx: Transaction, about: About, known: ReportVersion, new: ReportVersion) -> bool:
    """One review at a time: whoever reads the result reads its newest version."""
    if new.status in RETRACTED | {ResultStatus.REGISTERED}:
        return False
    return known.version == 0 or not await obligation_store.is_waiting(
        tx, ObligationKind.REVIEW, about.result_id
    )


async def alert_readers(tx: Transaction, about: About, readers: Iterable[UUID], *, place: Place) -> None:
    """Somebody has read what is withdrawn now: each of them has to say that they know."""
    for reader_id in sorted(set(readers)):
        await _oblige(
            tx, ObligationKind.RETRACTION, about, place, seconds=RETRACTION_SECONDS, reader_id=reader_id
        )


async def _oblige(
    tx: Transaction,
    kind: ObligationKind,
    about: About,
    place: Place,
    *,
    seconds: int,
    reader_id: UUID | None = None,
    observations: tuple[ObservationState, ...] = (),
) -> None:
    first = (OwnerRole.READER, reader_id) if reader_id else (OwnerRole.ORDERING, place.practitioner_id)
    asked = partial(_rungs, tx, first, place.department_id, seconds)
    rung = (await once(tx, ("rungs", *first, place.department_id, seconds), asked))[0]
    raised = Obligation(
        obligation_id=uuid7(),
        kind=kind,
        version=1,
        status=ObligationStatus.OPEN,
        result_id=about.result_id,
        result_version=about.result_version,
        patient_id=about.patient_id,
        partner_id=about.partner_id,
        lab_order_id=place.lab_order_id,
        practitioner_id=place.practitioner_id,
        centre_id=place.centre_id,
        department_id=place.department_id,
        reader_id=reader_id,
        seconds=seconds,
        owner_role=rung.role,
        owner_id=rung.owner_id,
        raised_at=tx.now,
        acknowledge_by_at=tx.now + timedelta(seconds=seconds),
        due_at=tx.now + rung.patience,
    )
    if reader_id is None:
        obligation_store.add_first(tx, raised)
    elif not await obligation_store.add(tx, raised):
        return
    await _set_timer(tx, raised)
    _call(tx, raised)
    if kind is ObligationKind.CRITICAL:
        tx.emit(critical_event(raised, observations))


def _call(tx: Transaction, obligation: Obligation) -> None:
    """Have whoever is asked told, but of a review only when nobody has read it in time: most are read anyway."""
    waits = obligation.kind is ObligationKind.REVIEW and obligation.status is ObligationStatus.OPEN
    if obligation.owner_id is not None and not waits:
        tx.emit(obligation_assigned(obligation, tx.now))


async def _rungs(
    tx: Transaction, first: tuple[OwnerRole, UUID | None], department_id: UUID | None, seconds: int
) -> list[Rung]:
    duty = await obligation_store.find_duty(tx, department_id) if department_id else None
    people = (first[1], duty.head_id if duty else None, duty.on_call_id if duty else None)
    return ladder(first, duty, seconds=seconds, absent=await obligation_store.absent_among(tx, people))


# -- asking the next one


@timers.on(TIMER)
async def escalate(tx: Transaction, timer: Timer) -> None:
    """Nobody has answered in time."""
    obligation = await obligation_store.find(tx, timer.subject, lock=True)
    if obligation is not None and obligation.version == timer.subject_version:
        await _ask_next(tx, obligation)


async def pass_on(tx: Transaction, person: UUID) -> None:
    """Somebody has left: what waited for them waits for the next one, at once."""
    for obligation in await obligation_store.lock_waiting_for(tx, person):
        await _ask_next(tx, obligation)


async def _ask_next(tx: Transaction, obligation: Obligation) -> None:
    if obligation.status is ObligationStatus.ACKNOWLEDGED:
        return
    reader_id = obligation.reader_id
    first = (OwnerRole.READER, reader_id) if reader_id else (OwnerRole.ORDERING, obligation.practitioner_id)
    rungs = await _rungs(tx, first, obligation.department_id, obligation.seconds)
    rung = next_rung(rungs, obligation.owner_role, obligation.owner_id)
    await _save(tx, obligation.escalated(rung, tx.now))


async def _save(tx: Transaction, changed: Obligation) -> None:
    await obligation_store.save(tx, changed)
    if changed.status is not ObligationStatus.ACKNOWLEDGED:
        await _set_timer(tx, changed)
        _call(tx, changed)
    if changed.kind is ObligationKind.CRITICAL:
        tx.emit(critical_event(changed, await _critical(tx, changed)))


async def _set_timer(tx: Transaction, obligation: Obligation) -> None:
    # Without an end of its usefulness: an obligation that is late must still be passed on.
    await tx.schedule(
        Timer(
            kind=TIMER,
            subject=obligation.obligation_id,
            subject_version=obligation.version,
            due_at=obligation.due_at,
        )
    )


async def _critical(tx: Transaction, obligation: Obligation) -> tuple[ObservationState, ...]:
    content = await result_store.find_content(tx, obligation.result_id, obligation.result_version)
    return tuple(o for o in content.observations if o.is_critical)


# -- answering


async def acknowledge(tx: Transaction, obligation_id: UUID, comment: str, *, caller: Principal) -> Obligation:
    """Somebody answers for it, saying what they have understood and done.

    Raises NotFoundError, AlreadyAcknowledgedError.
    """
    obligation = _seen(await obligation_store.find(tx, obligation_id, lock=True), caller)
    if obligation.status is ObligationStatus.ACKNOWLEDGED:
        raise AlreadyAcknowledgedError(
            acknowledged_by=str(obligation.acknowledged_by),
            acknowledged_at=str(obligation.acknowledged_at),
        )
    done = obligation.acknowledged(caller.subject, comment, tx.now)
    await _save(tx, done)
    await tx.cancel_timers(TIMER, obligation_id)
    _audit(tx, Action.UPDATE, done)
    return done


async def read(
    tx: Transaction, obligation_id: UUID, *, caller: Principal
) -> tuple[Obligation, tuple[ObservationState, ...]]:
    """Return an obligation with the critical values that it is about. Raises NotFoundError."""
    obligation = _seen(await obligation_store.find(tx, obligation_id), caller)
    _audit(tx, Action.READ, obligation)
    return obligation, await _critical(tx, obligation)


async def list_obligations(
    tx: Transaction,
    *,
    caller: Principal,
    kind: ObligationKind | None,
    waiting: bool,
    mine: bool,
    after: UUID | None,
    limit: int,
) -> list[Obligation]:
    within = None if caller.network else (caller.centre_ids, caller.department_ids)
    shown = Shown(reader_id=caller.subject, within=within, kind=kind, waiting=waiting, mine=mine)
    found = await obligation_store.list_shown(tx, shown, after=after, limit=limit)
    for obligation in found:
        _audit(tx, Action.READ, obligation)
    return found


def _seen(obligation: Obligation | None, caller: Principal) -> Obligation:
    """An obligation without a place is everybody's who may answer at all."""
    if obligation is None:
        raise NotFoundError
    place = {"centre_id": obligation.centre_id, "department_id": obligation.department_id}
    if not (caller.works_in(**place) or obligation.owner_id == caller.subject or not any(place.values())):
        raise ConcealedError
    return obligation


def _audit(tx: Transaction, action: Action, obligation: Obligation) -> None:
    tx.audit(
        AuditEntry(
            action=action,
            resource_type="Task",
            resource_id=obligation.obligation_id,
            patient_id=obligation.patient_id,
            details={"kind": obligation.kind.value, "result_id": str(obligation.result_id)},
        )
    )


# -- who is on duty


async def set_duty(
    tx: Transaction,
    department_id: UUID,
    *,
    head_id: UUID | None,
    on_call_id: UUID | None,
    expected_version: int | None,
) -> Duty:
    """Say who answers for a department's results when whoever is asked first doesn't."""
    if await store.find_department(tx, department_id) is None:
        raise ReferenceNotYetKnownError("The department is not known here yet.", reference="department_id")
    for name, person in (("head_id", head_id), ("on_call_id", on_call_id)):
        if person is not None:
            await _require_at_work(tx, name, person)
    known = await obligation_store.find_duty(tx, department_id, lock=True)
    version = known.version if known else 0
    tx.require_version(version, expected_version)
    changed = Duty(department_id=department_id, version=version + 1, head_id=head_id, on_call_id=on_call_id)
    await obligation_store.save_duty(tx, changed)
    tx.audit(AuditEntry(action=Action.UPDATE, resource_type="LabDuty", resource_id=department_id))
    return changed


async def _require_at_work(tx: Transaction, name: str, person: UUID) -> None:
    at_work = await obligation_store.is_at_work(tx, person)
    if at_work is None:
        raise ReferenceNotYetKnownError("This member of staff is not known here yet.", reference=name)
    if not at_work:
        raise InvalidRequestError(f"{name}: this member of staff sees no patients, or has left.")


# -- measuring


async def measure(_: Runtime, tx: Transaction) -> None:
    counted = {row.kind: row for row in await obligation_store.count_waiting(tx)}
    for kind in ObligationKind:
        row = counted.get(kind.value)
        WAITING.labels(kind=kind.value).set(row.waiting if row else 0)
        OVERDUE.labels(kind=kind.value).set(row.overdue if row else 0)
