"""Makes somebody pass a crash point that traffic doesn't lead to by itself: an operator's act, or time that passes."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from clinic_local.api_client import ApiError
from clinic_local.commands_reporting import REBUILDS
from clinic_local.environment import database_name
from clinic_shared.ids import uuid7_at
from clinic_shared.partitions import Month, audiences
from psycopg import Connection, sql

from .scene import LAB, Scene
from .server_harm import administrator, database_closed

Provocation = Callable[[Scene, str], None]

_AWAY_SECONDS = (3.0, 5.0)
_INBOX, _EVENTS = "inbox", "event"
_LONG_AGO = Month(datetime(2020, 1, 1, tzinfo=UTC))
_FURTHEST_AHEAD = """
    SELECT child.relname FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
    WHERE inhparent = %s::regclass AND child.relname ~ '_[0-9]{4}_[0-9]{2}$' AND child.relname > %s
    ORDER BY 1 DESC LIMIT 1
"""
# A state event of one that is the newest of its aggregate, and that no other state event tells.
_TOLD_LONG_AGO = """
    INSERT INTO event (event_id, carries, type, subject, aggregate_version, partition_key, patient_id, occurred_at,
        recorded_at, origin, correlation_id, causation_id, traceparent, data, private, seal)
    SELECT %s, event_id, type, subject, aggregate_version, partition_key, patient_id, occurred_at,
        recorded_at, origin, correlation_id, causation_id, traceparent, data, private, seal
    FROM event AS told WHERE told.type = ANY(%s) AND told.carries IS NULL AND NOT EXISTS (
        SELECT FROM event AS newer WHERE newer.subject = told.subject
            AND (newer.aggregate_version > told.aggregate_version OR newer.carries = told.event_id)
    ) ORDER BY told.event_id DESC LIMIT 1
"""
# As if they had come then: nothing else dates them, neither their bytes nor the tree.
_AGE_SIGNED_RECORDS = """
    UPDATE audit_record SET received_at = received_at - interval '3 years'
    WHERE leaf_index < (SELECT max(tree_size) FROM checkpoint) AND received_at > now() - interval '1 year'
"""


def accept_without_database(scene: Scene, service: str) -> None:
    """What is accepted meanwhile waits on the queue, and is drained when the database is back."""
    with database_closed(scene.stage.system, service):
        if service == LAB:
            scene.stage.lab.send(scene.rng.choice(scene.patients))
        else:
            time.sleep(scene.rng.uniform(*_AWAY_SECONDS))


def compare_read_models(scene: Scene, service: str) -> None:
    """Every producer sends its log again, if it isn't doing so already."""
    try:
        scene.stage.caller("admin").post(REBUILDS, {"compare_only": True})
    except ApiError as error:
        if error.slug != "rebuild-running":
            raise


def exchange_read_models(scene: Scene, service: str) -> None:
    scene.stage.caller("admin").post(REBUILDS, {"compare_only": False})


def miss_a_month(scene: Scene, service: str) -> None:
    """Take the furthest month away, in which nothing can be yet: who starts makes it again."""
    with administrator(scene.stage.system, database_name(service)) as admin, admin.transaction():
        admin.execute("SET LOCAL lock_timeout = '2s'")
        # Not this one or the next: who is to make the furthest again may not have come to it yet.
        following = Month.of(datetime.now(UTC)).following
        found = admin.execute(_FURTHEST_AHEAD, (_INBOX, following.name(_INBOX))).fetchone()
        if found is None:
            raise LookupError("no month is there in which nothing can be yet")
        month, table = sql.Identifier(found[0]), sql.Identifier(_INBOX)
        admin.execute(sql.SQL("ALTER TABLE {} DETACH PARTITION {}").format(table, month))
        admin.execute(sql.SQL("DROP TABLE {}").format(month))
    scene.stage.system.kill(f"{service}-worker")


def leave_a_month_behind(scene: Scene, service: str) -> None:
    """Make a month whose time is over: who starts lets it go."""
    with administrator(scene.stage.system, database_name(service)) as admin, admin.transaction():
        _make_month(admin, service, _INBOX)
    scene.stage.system.kill(f"{service}-worker")


def leave_a_month_of_events_behind(scene: Scene, service: str) -> None:
    """One that has what its consumers must be able to hear again: who starts carries that into today."""
    told_at = uuid7_at(_LONG_AGO.starts_at + timedelta(days=1))
    types = sorted({type_ for audience in audiences(service) for type_ in audience.types})
    with administrator(scene.stage.system, database_name(service)) as admin, admin.transaction():
        _make_month(admin, service, _EVENTS)
        if not admin.execute(_TOLD_LONG_AGO, (told_at, types)).rowcount:
            raise LookupError("no event is the newest of its aggregate")
    scene.stage.system.kill(f"{service}-worker")


def _make_month(admin: Connection[Any], service: str, table: str) -> None:
    admin.execute("SET LOCAL lock_timeout = '2s'")
    # Whose it is may let it go.
    admin.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(database_name(service))))
    first, end = (sql.Literal(str(bound)) for bound in _LONG_AGO.bounds.values())
    admin.execute(
        sql.SQL("CREATE TABLE IF NOT EXISTS {} PARTITION OF {} FOR VALUES FROM ({}) TO ({})").format(
            sql.Identifier(_LONG_AGO.name(table)), sql.Identifier(table), first, end
        )
    )


def let_years_pass_over_records(scene: Scene, service: str) -> None:
    """Make what is signed of the audit log old: who starts archives it."""
    with administrator(scene.stage.system, database_name(service)) as admin, admin.transaction():
        admin.execute("SET LOCAL lock_timeout = '2s'")
        # Without the trigger by which the log is append-only.
        admin.execute("SET LOCAL session_replication_role = replica")
        if not admin.execute(_AGE_SIGNED_RECORDS).rowcount:
            raise LookupError("no record is signed that isn't archived")
    scene.stage.system.kill(f"{service}-worker")


PROVOKED: Mapping[str, Provocation] = {
    "intake.drain.after": accept_without_database,
    "replay.batch.sent": compare_read_models,
    "rebuild.batch.before": compare_read_models,
    "rebuild.batch.after": compare_read_models,
    "rebuild.swap.before": exchange_read_models,
    "rebuild.swap.locked": exchange_read_models,
    "rebuild.swap.exchanged": exchange_read_models,
    "rebuild.swap.after": exchange_read_models,
    "partitions.moved": miss_a_month,
    "partitions.detached": leave_a_month_behind,
    "partitions.carried": leave_a_month_of_events_behind,
    "archive.written": let_years_pass_over_records,
    "archive.placed": let_years_pass_over_records,
    "archive.recorded": let_years_pass_over_records,
    "archive.removed": let_years_pass_over_records,
}
"""By label; who can't be made to pass it now raises one of `NOT_NOW`."""
