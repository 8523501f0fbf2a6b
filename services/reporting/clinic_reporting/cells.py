"""Reading facts as cells of departments; the adding up is done by `figures`.

Medians are the database's: they are asked for at the level of the report, since they can't be added up.
"""

from typing import Any

from clinic_shared.database import Transaction
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Date,
    Select,
    Table,
    and_,
    cast,
    extract,
    func,
    literal,
    null,
    or_,
    select,
    union_all,
)

from clinic_reporting import tables
from clinic_reporting.domain import AppointmentStatus, Level, Milestone, Period, Place, Scope
from clinic_reporting.figures import (
    Activity,
    ActivityCell,
    AnalysisLine,
    AppointmentCell,
    DayCell,
    Edge,
    LaboratoryCell,
    LaboratoryStage,
    Medians,
    MoneyCell,
    Movement,
    PostCell,
    ReferralCell,
    ReferralStage,
    Spread,
    Turnaround,
)
from clinic_reporting.scoping import facts_within, stands_in, within


def _place(row: Any) -> Place:
    return Place(row.centre_id, row.department_id)


def _seconds(from_at: ColumnElement[Any], until_at: ColumnElement[Any]) -> ColumnElement[Any]:
    return extract("epoch", until_at - from_at)


def _percentile(share: float, values: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.percentile_disc(share).within_group(values)


# -- appointments


async def appointment_cells(tx: Transaction, scope: Scope, period: Period) -> list[AppointmentCell]:
    fact = tables.appointment_fact.c
    keys = (fact.centre_id, fact.department_id, fact.service_code, fact.status)
    rows = await tx.fetch_all(
        select(
            *keys,
            func.count().label("appointments"),
            cast(func.sum(_seconds(fact.starts_at, fact.ends_at)), BigInteger).label("seconds"),
        )
        .where(facts_within(tables.appointment_fact, "starts_at", scope, period))
        .group_by(*keys)
    )
    return [
        AppointmentCell(
            place=_place(row),
            service_code=row.service_code,
            status=AppointmentStatus(row.status),
            appointments=row.appointments,
            seconds=row.seconds,
        )
        for row in rows
    ]


async def day_cells(tx: Transaction, scope: Scope, period: Period) -> list[DayCell]:
    fact, centre = tables.appointment_fact.c, tables.centre.c
    local_day = cast(func.timezone(centre.time_zone, fact.starts_at), Date).label("local_day")
    rows = await tx.fetch_all(
        select(
            fact.centre_id,
            fact.department_id,
            local_day,
            fact.status,
            cast(func.sum(_seconds(fact.starts_at, fact.ends_at)), BigInteger).label("seconds"),
        )
        .join_from(tables.appointment_fact, tables.centre, centre.centre_id == fact.centre_id)
        .where(facts_within(tables.appointment_fact, "starts_at", scope, period))
        .group_by(fact.centre_id, fact.department_id, local_day, fact.status)
    )
    return [
        DayCell(
            place=_place(row), on=row.local_day, status=AppointmentStatus(row.status), seconds=row.seconds
        )
        for row in rows
    ]


async def post_cells(tx: Transaction, scope: Scope) -> list[PostCell]:
    """Count the practitioners of each department as they are now."""
    staff, department = tables.staff_member.c, tables.department.c
    rows = await tx.fetch_all(
        select(department.centre_id, department.department_id, func.count().label("posts"))
        .join_from(
            tables.department,
            tables.staff_member,
            department.department_id == func.any(staff.department_ids),
        )
        .where(
            staff.active,
            staff.practitioner,
            stands_in(scope, department.centre_id, department.department_id),
        )
        .group_by(department.centre_id, department.department_id)
    )
    return [PostCell(place=_place(row), posts=row.posts) for row in rows]


# -- referrals

_STAGE_COLUMNS = {stage: tables.referral_fact.c[f"{stage.value}_at"] for stage in ReferralStage}


def _referrals_within(everywhere: Scope, scope: Scope, period: Period) -> ColumnElement[bool]:
    """Days are those of the sending centre; the reader must work at either end."""
    fact = tables.referral_fact.c
    ends = [
        stands_in(scope, fact[f"{end}_centre_id"], fact[f"{end}_department_id"]) for end in ("from", "to")
    ]
    created = within(everywhere, period, fact.created_at, fact.from_centre_id, fact.from_department_id)
    return and_(created, or_(*ends))


async def referral_cells(
    tx: Transaction, everywhere: Scope, scope: Scope, period: Period
) -> list[ReferralCell]:
    fact = tables.referral_fact.c
    keys = (fact.from_centre_id, fact.from_department_id, fact.to_centre_id, fact.to_department_id)
    rows = await tx.fetch_all(
        select(
            *keys,
            func.count().label("created"),
            *(func.count(column).label(stage.value) for stage, column in _STAGE_COLUMNS.items()),
        )
        .where(_referrals_within(everywhere, scope, period))
        .group_by(*keys)
    )
    return [
        ReferralCell(
            edge=Edge(
                Place(row.from_centre_id, row.from_department_id),
                Place(row.to_centre_id, row.to_department_id),
            ),
            created=row.created,
            reached={stage: getattr(row, stage.value) for stage in ReferralStage},
        )
        for row in rows
    ]


async def referral_medians(
    tx: Transaction, everywhere: Scope, scope: Scope, period: Period, level: Level
) -> Medians:
    """Return the median time from creation to each stage, of those that reached it, by the level's edges."""
    fact = tables.referral_fact.c
    by_department = level is Level.DEPARTMENT
    keys: list[ColumnElement[Any]] = [fact.from_centre_id, fact.to_centre_id]
    keys += [fact.from_department_id, fact.to_department_id] if by_department else []
    medians = [
        _percentile(0.5, _seconds(fact.created_at, column)).label(stage.value)
        for stage, column in _STAGE_COLUMNS.items()
    ]
    rows = await tx.fetch_all(
        select(*keys, *medians).where(_referrals_within(everywhere, scope, period)).group_by(*keys)
    )
    return {
        Edge(
            Place(row.from_centre_id, row.from_department_id if by_department else None),
            Place(row.to_centre_id, row.to_department_id if by_department else None),
        ): {stage: _whole(getattr(row, stage.value)) for stage in ReferralStage}
        for row in rows
    }


def _whole(seconds: Any) -> int | None:
    return None if seconds is None else round(seconds)


# -- laboratory

_RECEIVED = tables.lab_milestone.alias("received")
_FILED = tables.lab_milestone.alias("filed")


def _results() -> Any:
    """Results with the time of their first receipt, and of their first filing when it has come."""
    result = tables.lab_result_fact
    return (
        result.join(
            _RECEIVED,
            and_(
                _RECEIVED.c.result_id == result.c.result_id,
                _RECEIVED.c.milestone == Milestone.RECEIVED.value,
            ),
        )
        .outerjoin(
            _FILED,
            and_(_FILED.c.result_id == result.c.result_id, _FILED.c.milestone == Milestone.FILED.value),
        )
        .outerjoin(tables.lab_order_fact, tables.lab_order_fact.c.lab_order_id == result.c.lab_order_id)
    )


def _results_within(scope: Scope, period: Period) -> ColumnElement[bool]:
    result = tables.lab_result_fact.c
    return within(scope, period, _RECEIVED.c.reached_at, result.centre_id, result.department_id)


async def laboratory_cells(tx: Transaction, scope: Scope, period: Period) -> list[LaboratoryCell]:
    result = tables.lab_result_fact.c
    of_results = (
        select(
            result.centre_id,
            result.department_id,
            func.count().label("results"),
            func.count().filter(result.status.in_(["amended", "corrected"])).label("corrected"),
            func.count().filter(result.status.in_(["cancelled", "entered-in-error"])).label("retracted"),
            func.count().filter(result.critical_count > 0).label("critical"),
        )
        .select_from(_results())
        .where(_results_within(scope, period))
        .group_by(result.centre_id, result.department_id)
    )
    cells = [
        LaboratoryCell(
            place=_place(row),
            results=row.results,
            corrected=row.corrected,
            retracted=row.retracted,
            critical=row.critical,
        )
        for row in await tx.fetch_all(of_results)
    ]
    orders = await tx.fetch_all(_counted(tables.lab_order_fact, "placed_at", scope, period))
    obligations = await tx.fetch_all(_counted(tables.critical_result_fact, "raised_at", scope, period))
    cells += [LaboratoryCell(place=_place(row), orders=row.counted) for row in orders]
    cells += [LaboratoryCell(place=_place(row), obligations=row.counted) for row in obligations]
    return cells


def _counted(table: Table, at: str, scope: Scope, period: Period) -> Select[Any]:
    keys = (table.c.centre_id, table.c.department_id)
    counted = select(*keys, func.count().label("counted"))
    return counted.where(facts_within(table, at, scope, period)).group_by(*keys)


async def turnarounds(tx: Transaction, scope: Scope, period: Period, level: Level) -> dict[Place, Turnaround]:
    """Return the spreads of results first received in the period, by the level's places."""
    result, placed_at = tables.lab_result_fact.c, tables.lab_order_fact.c.placed_at
    received_at, filed_at = _RECEIVED.c.reached_at, _FILED.c.reached_at
    steps = {
        "placed_to_received": _seconds(placed_at, received_at),
        "received_to_filed": _seconds(received_at, filed_at),
        "placed_to_filed": _seconds(placed_at, filed_at),
    }
    keys = [result.centre_id, *([result.department_id] if level is Level.DEPARTMENT else [])]
    columns = [
        _percentile(share, seconds).label(f"{step}_{name}")
        for step, seconds in steps.items()
        for name, share in (("median", 0.5), ("p90", 0.9))
    ]
    rows = await tx.fetch_all(
        select(*keys, *columns).select_from(_results()).where(_results_within(scope, period)).group_by(*keys)
    )
    return {
        Place(row.centre_id, row.department_id if level is Level.DEPARTMENT else None): Turnaround(
            **{
                step: Spread(
                    median_seconds=_whole(getattr(row, f"{step}_median")),
                    p90_seconds=_whole(getattr(row, f"{step}_p90")),
                )
                for step in steps
            }
        )
        for row in rows
    }


MOST_TESTS = 1000


async def test_lines(tx: Transaction, scope: Scope, period: Period) -> list[tuple[int, AnalysisLine]]:
    """Return the tests of results first received in the period, the most frequent first, with how many."""
    result, placed_at = tables.lab_result_fact.c, tables.lab_order_fact.c.placed_at
    received_at, filed_at = _RECEIVED.c.reached_at, _FILED.c.reached_at
    stages = {
        LaboratoryStage.PLACED_TO_COLLECTED: _seconds(placed_at, result.collected_at),
        LaboratoryStage.COLLECTED_TO_REPORTED: _seconds(result.collected_at, result.reported_at),
        LaboratoryStage.REPORTED_TO_RECEIVED: _seconds(result.reported_at, received_at),
        LaboratoryStage.RECEIVED_TO_FILED: _seconds(received_at, filed_at),
        LaboratoryStage.PLACED_TO_FILED: _seconds(placed_at, filed_at),
    }
    keys = (result.partner_id, result.test_code, result.test_system)
    columns = [
        _percentile(share, seconds).label(f"{stage}_{name}")
        for stage, seconds in stages.items()
        for name, share in (("median", 0.5), ("p90", 0.9))
    ]
    rows = await tx.fetch_all(
        select(*keys, func.count().label("results"), *columns)
        .select_from(_results())
        .where(_results_within(scope, period))
        .group_by(*keys)
        .order_by(func.count().desc(), *keys)
        .limit(MOST_TESTS)
    )
    return [(row.results, _analysis(row)) for row in rows]


def _analysis(row: Any) -> AnalysisLine:
    return AnalysisLine(
        partner_id=row.partner_id,
        test_code=row.test_code,
        test_system=row.test_system,
        results=row.results,
        stages={
            stage: Spread(
                median_seconds=_whole(getattr(row, f"{stage}_median")),
                p90_seconds=_whole(getattr(row, f"{stage}_p90")),
            )
            for stage in LaboratoryStage
        },
    )


# -- revenue

_MOVEMENTS = {
    Movement.INVOICED: (tables.invoice_fact, "total_minor", "issued_at"),
    Movement.PAID: (tables.payment_fact, "amount_minor", "received_at"),
    Movement.REFUNDED: (tables.refund_fact, "amount_minor", "refunded_at"),
}


async def money_cells(tx: Transaction, scope: Scope, period: Period) -> list[MoneyCell]:
    """Each movement on its own day: what is paid in a period needn't be invoiced in it."""
    parts = []
    for movement, (table, amount, at) in _MOVEMENTS.items():
        keys = (table.c.centre_id, table.c.department_id, table.c.currency)
        parts.append(
            select(
                *keys,
                literal(movement.value).label("movement"),
                func.count().label("documents"),
                cast(func.sum(table.c[amount]), BigInteger).label("amount_minor"),
            )
            .where(facts_within(table, at, scope, period))
            .group_by(*keys)
        )
    return [
        MoneyCell(
            place=_place(row),
            currency=row.currency,
            movement=Movement(row.movement),
            documents=row.documents,
            amount_minor=row.amount_minor,
        )
        for row in await tx.fetch_all(union_all(*parts))
    ]


# -- activity

_ACTIVITIES = {
    Activity.REGISTRATIONS: (tables.registration_fact, "registered_at"),
    Activity.ENCOUNTERS: (tables.encounter_fact, "started_at"),
    Activity.PRESCRIPTIONS: (tables.prescription_fact, "issued_at"),
    Activity.MESSAGES: (tables.message_fact, "queued_at"),
    Activity.CONSENTS: (tables.consent_fact, "changed_at"),
}


ACTIVITY_TABLES = tuple(table for table, _ in _ACTIVITIES.values())


async def activity_cells(tx: Transaction, scope: Scope, period: Period) -> list[ActivityCell]:
    parts = [_activities(activity, table, at, scope, period) for activity, (table, at) in _ACTIVITIES.items()]
    return [
        ActivityCell(place=_place(row), activity=Activity(row.activity), status=row.status, count=row.counted)
        for row in await tx.fetch_all(union_all(*parts))
    ]


def _activities(activity: Activity, table: Table, at: str, scope: Scope, period: Period) -> Select[Any]:
    """Consents have no place and registrations no department: they stand beside the departments."""
    nowhere: ColumnElement[Any] = cast(null(), tables.centre.c.centre_id.type)
    centre_id = table.c.get("centre_id", nowhere)
    department_id = table.c.get("department_id", nowhere)
    return (
        select(
            centre_id.label("centre_id"),
            department_id.label("department_id"),
            literal(activity.value).label("activity"),
            table.c.status,
            func.count().label("counted"),
        )
        .where(within(scope, period, table.c[at], centre_id, table.c.get("department_id")))
        .group_by("centre_id", "department_id", table.c.status)
    )
