"""Makes somebody pass a crash point that traffic doesn't lead to by itself: an operator's act, or a month's turn."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from clinic_local.api_client import ApiError
from clinic_local.commands_reporting import REBUILDS
from clinic_local.environment import database_name
from clinic_shared.partitions import Month
from psycopg import sql

from .scene import LAB, Scene
from .server_harm import administrator, database_closed

Provocation = Callable[[Scene, str], None]

_AWAY_SECONDS = (3.0, 5.0)
_TABLE = "inbox"
_LONG_AGO = Month(datetime(2020, 1, 1, tzinfo=UTC))
_FURTHEST_AHEAD = """
    SELECT child.relname FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
    WHERE inhparent = %s::regclass AND child.relname ~ '_[0-9]{4}_[0-9]{2}$' ORDER BY 1 DESC LIMIT 1
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
        found = admin.execute(_FURTHEST_AHEAD, (_TABLE,)).fetchone()
        if found is None:
            raise LookupError("no month is there")
        month, table = sql.Identifier(found[0]), sql.Identifier(_TABLE)
        admin.execute(sql.SQL("ALTER TABLE {} DETACH PARTITION {}").format(table, month))
        admin.execute(sql.SQL("DROP TABLE {}").format(month))
    scene.stage.system.kill(f"{service}-worker")


def leave_a_month_behind(scene: Scene, service: str) -> None:
    """Make a month whose time is over: who starts lets it go."""
    month, table = sql.Identifier(_LONG_AGO.name(_TABLE)), sql.Identifier(_TABLE)
    first, end = (sql.Literal(str(bound)) for bound in _LONG_AGO.bounds.values())
    with administrator(scene.stage.system, database_name(service)) as admin, admin.transaction():
        admin.execute("SET LOCAL lock_timeout = '2s'")
        # Whose it is may let it go.
        admin.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(database_name(service))))
        admin.execute(
            sql.SQL("CREATE TABLE IF NOT EXISTS {} PARTITION OF {} FOR VALUES FROM ({}) TO ({})").format(
                month, table, first, end
            )
        )
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
}
"""By label; who can't be made to pass it now raises one of `NOT_NOW`."""
