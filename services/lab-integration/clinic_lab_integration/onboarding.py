"""A laboratory's first days: what it has shown, case by case, before it is let into production."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.intake import Item, intake_table
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from clinic_lab_integration import matching, sandbox, stored, unit_store
from clinic_lab_integration.domain import Disposition, MessageId, ParkReason
from clinic_lab_integration.hl7 import Observation, Report, ResultStatus
from clinic_lab_integration.messages import MessageNote
from clinic_lab_integration.sandbox import SandboxPatient
from clinic_lab_integration.store import Partner
from clinic_lab_integration.tables import lab_unit, onboarding_case
from clinic_lab_integration.unit_store import Outcome, Unit

IDENTIFIER, ORDER, SEVERAL = "patient-number", "order-number", "several-patients"
CORRECTION, CRITICAL, CHARACTERS = "correction", "critical-value", "character-set"
REFUSAL, REPETITION = "refusal", "repetition"

CASES = {
    IDENTIFIER: "Results are matched by a patient's number (PID-3, authority POLYCLINIC)",
    ORDER: "Results are matched by our order number (ORC-2 or OBR-2)",
    SEVERAL: "One message brings results of two patients",
    CORRECTION: "A result that was final is corrected (OBX-11 C)",
    CRITICAL: "A value is flagged as critical (OBX-8 HH, LL or AA)",
    CHARACTERS: "Text that isn't ASCII is read in the character set that was declared or agreed",
    REFUSAL: "A message that can't be taken is refused (AE, AR), and the laboratory sees why",
    REPETITION: "The same bytes are sent again, and get the same acknowledgement",
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """Passed with `message_id`; open while there is none."""

    name: str
    description: str
    message_id: UUID | None = None
    passed_at: datetime | None = None


async def take(tx: Transaction, item: Item, note: MessageNote, partner: Partner | None) -> None:
    """Work off a message of a laboratory that is tried out: matched in the sandbox, and no further."""
    content = stored.read(item.interface, item.body, note, partner)
    cases = set(_shown(item, note, content.report))
    for group in matching.groups_of(content, partner, message_id=item.id):
        found = sandbox.whose(group)
        if isinstance(found, SandboxPatient):
            cases |= _matched_by(found, group)
        await _settle(tx, item, note, group.index, found)
    await note_cases(tx, UUID(note.partner_id), item.id, cases)


async def note_cases(tx: Transaction, partner_id: UUID, message_id: UUID, names: Collection[str]) -> None:
    """Remember the first message that showed each case."""
    if names:
        rows = [
            {"partner_id": partner_id, "name": name, "message_id": message_id, "passed_at": tx.now}
            for name in sorted(names)
        ]
        await tx.execute(insert(onboarding_case).on_conflict_do_nothing(), rows)


async def list_cases(tx: Transaction, partner_id: UUID) -> list[Case]:
    rows = await tx.fetch_all(select(onboarding_case).where(onboarding_case.c.partner_id == partner_id))
    passed = {row.name: (row.message_id, row.passed_at) for row in rows}
    repeated = await tx.fetch_one(
        select(func.min(intake_table.c.received_at).label("at"), func.count().label("messages"))
        .join(lab_unit, lab_unit.c.message_id == intake_table.c.id)
        .where(lab_unit.c.partner_id == partner_id, intake_table.c.duplicates > 0)
    )
    if repeated is not None and repeated.messages:
        passed[REPETITION] = (None, repeated.at)
    return [
        Case(name=name, description=text, message_id=found[0], passed_at=found[1])
        for name, text in CASES.items()
        for found in [passed.get(name, (None, None))]
    ]


def _shown(item: Item, note: MessageNote, report: Report) -> Iterator[str]:
    observations = list(_observations(report))
    orders = [order for patient in report.patients for order in patient.orders]
    if len(report.patients) > 1:
        yield SEVERAL
    if ResultStatus.CORRECTED in {o.status for o in observations} | {o.status for o in orders}:
        yield CORRECTION
    if any(observation.is_critical for observation in observations):
        yield CRITICAL
    if not item.body.isascii() and not any(finding.location == "MSH-18" for finding in note.findings):
        yield CHARACTERS


def _observations(report: Report) -> Iterator[Observation]:
    for patient in report.patients:
        yield from patient.observations
        for order in patient.orders:
            yield from order.observations


def _matched_by(patient: SandboxPatient, group: matching.Group) -> set[str]:
    by_number = {IDENTIFIER} if patient.identifier in group.identifiers else set()
    return by_number | ({ORDER} if patient.order_number in group.order_numbers else set())


async def _settle(
    tx: Transaction, item: Item, note: MessageNote, index: int, found: SandboxPatient | ParkReason
) -> None:
    """Whoever put the partner into test mode has decided that its results have no effect."""
    reason = f"sandbox-{found.value}" if isinstance(found, ParkReason) else "sandbox"
    unit = Unit(
        message_id=MessageId(item.id),
        group_index=index,
        partner_id=UUID(note.partner_id),
        disposition=Disposition.DISCARDED,
        reason=reason,
        patient_id=None,
        received_at=item.received_at,
        interface=item.interface,
        decision_reason="The laboratory is in test mode",
    )
    unit_store.add_unit(tx, unit, Outcome(Disposition.DISCARDED, reason))
