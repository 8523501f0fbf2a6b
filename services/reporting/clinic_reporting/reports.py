"""The reports: what a reader may count, the cells of that, folded to the level that was asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.errors import ForbiddenError, ReferenceNotYetKnownError
from clinic_shared.principal import Principal
from sqlalchemy import Column

from clinic_reporting import cells, figures, store, tables
from clinic_reporting.domain import Level, Part, Period, Place, Scope, scope_of

Line = TypeVar("Line")


@dataclass(frozen=True, kw_only=True)
class Question:
    """Which report is asked for, at which level, of which days, of one centre or all."""

    level: Level
    period: Period
    centre_id: UUID | None


@dataclass(frozen=True)
class Names:
    """What places and services are called now; a renamed department's old figures have its new name."""

    centres: dict[UUID, str]
    departments: dict[UUID, str]
    services: dict[str, str]

    def of(self, place: Place) -> str | None:
        """Return the place's name; None when it is no place or isn't known here yet."""
        if place.department_id is not None:
            return self.departments.get(place.department_id)
        return self.centres.get(place.centre_id) if place.centre_id is not None else None


@dataclass(frozen=True)
class Report(Generic[Line]):
    """`as_of` is the time of the newest event among those that the figures come from."""

    question: Question
    as_of: datetime | None
    names: Names
    lines: Sequence[Line]


@dataclass(frozen=True)
class _Reading:
    """A question as its reader may have it answered."""

    question: Question
    everywhere: Scope
    scope: Scope
    names: Names

    async def report(
        self, tx: Transaction, lines: Sequence[Line], columns: Sequence[Column[Any]]
    ) -> Report[Line]:
        return Report(self.question, await store.newest(tx, columns), self.names, lines)


async def _read(tx: Transaction, question: Question, caller: Principal) -> _Reading:
    centres, departments = await store.list_centres(tx), await store.list_departments(tx)
    scope = scope_of(
        caller, question.level, centres=centres, departments=departments, centre_id=question.centre_id
    )
    if question.centre_id is not None and not scope.parts:
        if caller.works_in(centre_id=question.centre_id):
            raise ReferenceNotYetKnownError("The centre is not known here yet.", reference="centre_id")
        raise ForbiddenError("This centre's report is outside your scope.")
    names = Names({c.centre_id: c.name for c in centres}, {d.department_id: d.name for d in departments}, {})
    return _Reading(question, Scope(tuple(Part(c) for c in centres)), scope, names)


async def appointments(
    tx: Transaction, question: Question, caller: Principal
) -> Report[figures.AppointmentLine]:
    reading = await _read(tx, question, caller)
    found = await cells.appointment_cells(tx, reading.scope, question.period)
    reading.names.services.update(await store.service_names(tx, {cell.service_code for cell in found}))
    lines = figures.fold_appointments(found, question.level)
    return await reading.report(tx, lines, [tables.appointment_fact.c.occurred_at])


async def utilisation(
    tx: Transaction, question: Question, caller: Principal
) -> Report[figures.UtilisationLine]:
    reading = await _read(tx, question, caller)
    lines = figures.fold_utilisation(
        await cells.day_cells(tx, reading.scope, question.period),
        await cells.post_cells(tx, reading.scope),
        question.level,
    )
    return await reading.report(tx, lines, [tables.appointment_fact.c.occurred_at])


async def referrals(tx: Transaction, question: Question, caller: Principal) -> Report[figures.ReferralLine]:
    reading = await _read(tx, question, caller)
    within = (reading.everywhere, reading.scope, question.period)
    lines = figures.fold_referrals(
        await cells.referral_cells(tx, *within),
        question.level,
        await cells.referral_medians(tx, *within, question.level),
    )
    return await reading.report(tx, lines, [tables.referral_fact.c.occurred_at])


async def laboratory(
    tx: Transaction, question: Question, caller: Principal
) -> Report[figures.LaboratoryLine]:
    reading = await _read(tx, question, caller)
    lines = figures.fold_laboratory(
        await cells.laboratory_cells(tx, reading.scope, question.period),
        question.level,
        await cells.turnarounds(tx, reading.scope, question.period, question.level),
    )
    heard = (tables.lab_order_fact, tables.lab_result_fact, tables.critical_result_fact)
    columns = [*(table.c.occurred_at for table in heard), tables.lab_milestone.c.reached_at]
    return await reading.report(tx, lines, columns)


async def turnaround(tx: Transaction, question: Question, caller: Principal) -> Report[figures.AnalysisLine]:
    reading = await _read(tx, question, caller)
    lines = figures.without_rare_tests(await cells.test_lines(tx, reading.scope, question.period))
    heard = (tables.lab_order_fact, tables.lab_result_fact)
    columns = [*(table.c.occurred_at for table in heard), tables.lab_milestone.c.reached_at]
    return await reading.report(tx, lines, columns)


async def revenue(tx: Transaction, question: Question, caller: Principal) -> Report[figures.RevenueLine]:
    reading = await _read(tx, question, caller)
    found = await cells.money_cells(tx, reading.scope, question.period)
    heard = (tables.invoice_fact, tables.payment_fact, tables.refund_fact)
    return await reading.report(
        tx, figures.fold_revenue(found, question.level), [table.c.occurred_at for table in heard]
    )


async def activity(tx: Transaction, question: Question, caller: Principal) -> Report[figures.ActivityLine]:
    reading = await _read(tx, question, caller)
    found = await cells.activity_cells(tx, reading.scope, question.period)
    columns = [table.c.occurred_at for table in cells.ACTIVITY_TABLES]
    return await reading.report(tx, figures.fold_activity(found, question.level), columns)
