"""Whose results a patient group holds, and what to wait for while nobody knows.

By our own order numbers and by (authority, identifier); never by name or birth date.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from clinic_shared import merges
from clinic_shared.database import Transaction

from clinic_lab_integration import reports, store
from clinic_lab_integration.candidates import LONGEST_NAME, Person
from clinic_lab_integration.domain import Identifier, ParkReason, SentReport, match
from clinic_lab_integration.hl7 import PatientResult
from clinic_lab_integration.reports import Content
from clinic_lab_integration.store import LabOrder, Partner

_ORDER_NUMBER = "placer-order-number"


@dataclass(frozen=True, kw_only=True)
class Group:
    """A patient group, read: `index` counts within the message, from 0."""

    index: int
    person: Person
    numbers: frozenset[str]
    identifiers: tuple[Identifier, ...]
    reports: tuple[SentReport, ...]

    @property
    def order_numbers(self) -> set[str]:
        return {r.own_order_number for r in self.reports if r.own_order_number}

    @property
    def keys(self) -> tuple[Identifier, ...]:
        """What would match it."""
        return (*self.identifiers, *(order_key(n) for n in sorted(self.order_numbers) if len(n) <= 200))  # noqa: PLR2004  # what an index can hold


def order_key(placer_order_number: str) -> Identifier:
    return Identifier(_ORDER_NUMBER, placer_order_number)


def groups_of(content: Content, partner: Partner | None, *, message_id: UUID) -> list[Group]:
    authorities = partner.identifier_authorities if partner else {}
    return [
        Group(
            index=index,
            person=_person(patient),
            numbers=frozenset(i.value for i in patient.identifiers),
            identifiers=reports.identifiers(patient, authorities),
            reports=reports.sent_reports(
                patient, authorities, sent_at=content.sent_at, fallback_key=f"{message_id}:{index}"
            ),
        )
        for index, patient in enumerate(content.report.patients)
    ]


def _person(patient: PatientResult) -> Person:
    return Person(
        family=patient.family_name[:LONGEST_NAME] or None,
        given=patient.given_name[:LONGEST_NAME] or None,
        patronymic=patient.middle_name[:LONGEST_NAME] or None,
        birth_on=patient.birth_on,
        sex=patient.sex or None,
    )


@dataclass(frozen=True)
class Match:
    """Whose a group is, or why nobody can say; and our orders that it names, by their numbers."""

    whose: UUID | ParkReason
    orders: Mapping[str, LabOrder] = field(default_factory=dict)


async def match_surely(
    tx: Transaction, partner_id: UUID, groups: Sequence[Group], found: Sequence[Match]
) -> Sequence[Match]:
    """Return what was found; or, if a group is unmatched, what is found now.

    While one is unmatched, no patient and no order can come in unseen until commit.
    """
    if not any(isinstance(match.whose, ParkReason) for match in found):
        return found
    await store.lock_matching(tx, alone=True)
    return await match_groups(tx, [(partner_id, group) for group in groups])


async def match_group(tx: Transaction, partner_id: UUID, group: Group) -> Match:
    [found] = await match_groups(tx, [(partner_id, group)])
    return found


async def match_groups(tx: Transaction, groups: Sequence[tuple[UUID, Group]]) -> list[Match]:
    """Match groups, each of a laboratory, all with the same three statements. Who was replaced is who replaced them."""
    numbers = {number for _, group in groups for number in group.order_numbers}
    found = await store.orders_with(tx, numbers)
    named = await store.owners_of(tx, {key for _, group in groups for key in group.identifiers})
    people = {order.patient_id for order in found}.union(*named.values())
    survivors = await merges.survivors_of(tx, people)
    orders = {
        order.placer_order_number: replace(
            order, patient_id=survivors.get(order.patient_id, order.patient_id)
        )
        for order in found
    }
    owners = {key: {survivors.get(one, one) for one in of_key} for key, of_key in named.items()}
    return [_match(partner_id, group, orders, owners) for partner_id, group in groups]


def _match(
    partner_id: UUID,
    group: Group,
    orders: Mapping[str, LabOrder],
    owners: Mapping[Identifier, Collection[UUID]],
) -> Match:
    named = {number: orders[number] for number in group.order_numbers if number in orders}
    identified = {patient_id for key in group.identifiers for patient_id in owners.get(key, ())}
    return Match(match(partner_id, orders=list(named.values()), identified=identified), named)
