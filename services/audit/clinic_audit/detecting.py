"""Detection as it runs: behind the log, record by record, one process at a time.

How far it has come is a row, locked while a batch is judged. Whoever finds the row elsewhere than they left it
begins anew from the last day's records; what was found before is known by its occasion, and told once.
"""

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from clinic_shared.audit import Outcome
from clinic_shared.database import Transaction
from clinic_shared.health import Health
from clinic_shared.loops import keep_running, pause
from clinic_shared.metrics import REGISTRY
from prometheus_client import Counter
from sqlalchemy import Row, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from clinic_audit import search, suspicions
from clinic_audit.detection import LOGIN, Act, Alarm, Detector
from clinic_audit.detection_rules import Rules
from clinic_audit.detection_tables import workday
from clinic_audit.events import suspicious_access_detected
from clinic_audit.habits import Workday
from clinic_audit.people import find_people
from clinic_audit.settings import AuditSettings
from clinic_audit.tables import audit_record, feed

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

NAME = "detection"
BATCH = 1000
POLL_SECONDS = 1.0
LOOK_BACK = timedelta(days=1)
"""Longer than any rule's window; habits are remembered for longer, as counts."""

SUSPICIONS = Counter(
    "clinic_audit_suspicions_total", "What was found suspicious", ["rule"], registry=REGISTRY
)


async def detect(runtime: "Runtime", stop: asyncio.Event) -> None:
    """Judge what comes into the log until told to stop."""
    settings = cast("AuditSettings", runtime.settings)
    watcher = Watcher(Rules.load(settings.audit_detection_file))

    async def work() -> None:
        while not stop.is_set():
            async with runtime.database.transaction() as tx:
                judged = await watcher.judge_some(tx)
            Health.of(runtime).report(NAME, None)
            # Judging few costs as much as judging many.
            if judged < BATCH:
                await pause(stop, POLL_SECONDS)

    await keep_running(NAME, stop, work, Health.of(runtime))


class Watcher:
    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._detector = Detector(rules)
        self._next = -1

    async def judge_some(self, tx: Transaction) -> int:
        """Judge the next records; returns how many there were. None while another process does it."""
        position = await _lock_position(tx)
        if position is None:
            return 0
        if position != self._next:
            await self._begin_at(tx, position)
        rows = await search.find(tx, search.Wanted(), after=position - 1, limit=BATCH)
        alarms = await self._observe(tx, rows)
        if len(rows) < BATCH:
            alarms += self._detector.settle(tx.now)
        for alarm in alarms:
            await _tell(tx, alarm)
        await self._remember_habits(tx)
        self._next = rows[-1].leaf_index + 1 if rows else position
        await tx.execute(update(feed).where(feed.c.name == NAME).values(next_index=self._next))
        return len(rows)

    async def _observe(self, tx: Transaction, rows: Sequence[Row[Any]]) -> list[Alarm]:
        acts = [act_of(row) for row in rows]
        people = await find_people(
            tx, {act.agent for act in acts}, {act.patient for act in acts if act.patient is not None}
        )
        return [alarm for act in acts for alarm in self._detector.observe(act, people)]

    async def _begin_at(self, tx: Transaction, position: int) -> None:
        self._detector = Detector(self._rules, await _habits(tx, self._rules))
        at = await _first_since(tx, tx.now - LOOK_BACK)
        while at < position:
            rows = await search.find(tx, search.Wanted(), after=at - 1, limit=min(BATCH, position - at))
            if not rows:
                break
            for alarm in await self._observe(tx, rows):
                await _tell(tx, alarm)
            at = rows[-1].leaf_index + 1

    async def _remember_habits(self, tx: Transaction) -> None:
        values = [
            {
                "person": person,
                "day": day.day,
                "peers": day.group,
                "patients": day.patients,
                "busiest_hour": day.busiest_hour,
                "hours": day.hours,
            }
            for person, day in self._detector.habits.take_changed()
        ]
        if not values:
            return
        statement = insert(workday).values(values)
        counted = {name: statement.excluded[name] for name in ("patients", "busiest_hour", "hours")}
        await tx.execute(statement.on_conflict_do_update(index_elements=["person", "day"], set_=counted))
        oldest = tx.now.date() - timedelta(days=self._rules.history_days + 1)
        await tx.execute(delete(workday).where(workday.c.day < oldest))


async def _tell(tx: Transaction, alarm: Alarm) -> None:
    found = await suspicions.keep(tx, alarm)
    if found is not None:
        tx.emit(suspicious_access_detected(found))
        SUSPICIONS.labels(rule=found.rule.value).inc()


async def _lock_position(tx: Transaction) -> int | None:
    """Return where to go on, or None while another process does; at the very first start a day back."""
    position = select(feed.c.next_index).where(feed.c.name == NAME)
    row = await tx.fetch_one(position.with_for_update(skip_locked=True))
    if row is not None:
        return int(row.next_index)
    if await tx.fetch_one(position) is None:
        begin = await _first_since(tx, tx.now - LOOK_BACK)
        await tx.execute(insert(feed).values(name=NAME, next_index=begin).on_conflict_do_nothing())
    return None


async def _first_since(tx: Transaction, since: datetime) -> int:
    row = await tx.fetch_one(
        select(func.min(audit_record.c.leaf_index)).where(audit_record.c.recorded_at >= since)
    )
    if row is not None and row[0] is not None:
        return int(row[0])
    newest = await tx.fetch_one(select(func.coalesce(func.max(audit_record.c.leaf_index) + 1, 0)))
    return 0 if newest is None else int(newest[0])


async def _habits(tx: Transaction, rules: Rules) -> list[tuple[UUID, Workday]]:
    oldest = tx.now.date() - timedelta(days=rules.history_days)
    rows = await tx.fetch_all(select(workday).where(workday.c.day >= oldest))
    return [
        (row.person, Workday(row.day, row.peers, row.patients, row.busiest_hour, row.hours)) for row in rows
    ]


def act_of(row: Row[Any]) -> Act:
    """Return a record of the log as rules see it."""
    record = json.loads(row.record)
    details, agent = record.get("details") or {}, record["agent"]
    return Act(
        index=row.leaf_index,
        at=row.recorded_at,
        agent=row.agent,
        kind=agent.get("kind") or "",
        roles=frozenset(agent.get("roles") or ()),
        action=row.action,
        denied=row.outcome != Outcome.SUCCESS.value,
        resource_type=row.entity_type,
        account=_uuid(row.entity_id) if row.entity_type == LOGIN else None,
        patient=row.patient_id,
        relationship=details.get("relationship"),
        country=details.get("country"),
        request=row.request_id,
    )


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None
