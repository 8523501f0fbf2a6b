"""Migrations run while the release before works: they expand, wait for no lock for long, and contract later.

A migration that takes something away says so, `expanded_in = "<revision>"`: the earlier one since which no code
needs it any more.
"""

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import Script, ScriptDirectory
from clinic_local.paths import CHECKOUT
from clinic_shared import contracts
from clinic_shared.migrations import LOCK_TIMEOUT_SECONDS, RUNTIME_DIR

SQUAWK = Path(sys.executable).with_name("squawk")
OLDEST_POSTGRES = "15.0"
CONTRACTIONS = frozenset(
    {
        *("ban-drop-column", "ban-drop-table", "ban-drop-not-null", "renaming-column", "renaming-table"),
        *("changing-column-type", "adding-not-nullable-field"),
    }
)
NOT_OURS = {
    "require-lock-timeout": "clinic_shared.migrations sets it for all",
    "require-statement-timeout": "an index of a large table takes as long as it takes",
    "prefer-bigint-over-int": "counters and hours are small",
    "prefer-bigint-over-smallint": "same",
    "prefer-robust-stmts": "the history says what was applied; each migration is one transaction",
    "prefer-text-field": "there are none",
    "require-concurrent-partition-detach": "partitions are detached by the runtime, not by migrations",
}
DIRECTORIES = {"runtime": RUNTIME_DIR} | {
    name: CHECKOUT / "services" / name / "migrations" for name in contracts.load().services
}


def later_migrations() -> Iterator[Any]:
    """Yield all but the first of each history: that one makes a database that nobody uses yet."""
    for name, directory in DIRECTORIES.items():
        for script in ScriptDirectory(str(directory)).walk_revisions():
            if script.down_revision is not None:
                yield pytest.param(directory, script, id=f"{name}-{script.revision}")


def sql_of(directory: Path, script: Script) -> str:
    """Return what a migration sends to PostgreSQL."""
    sent = io.StringIO()
    scripts = ScriptDirectory(str(directory))

    def only_this(_: object, __: object) -> Any:
        return scripts._upgrade_revs(script.revision, str(script.down_revision))

    with EnvironmentContext(Config(), scripts, fn=only_this, as_sql=True) as environment:
        environment.configure(
            dialect_name="postgresql", output_buffer=sent, transaction_per_migration=True, as_sql=True
        )
        with environment.begin_transaction():
            environment.run_migrations()
    # What a migration inserts is sent as parameters, which the linter's grammar doesn't know.
    return re.sub(r"%\(\w+\)s", "NULL", sent.getvalue())


def complaints(sql: str, *, contracts: bool = False) -> list[str]:
    """Return what is wrong with a migration, as `rule: message`."""
    excluded = [*NOT_OURS, *(CONTRACTIONS if contracts else ())]
    told = subprocess.run(
        [
            *(SQUAWK, "--reporter=json", f"--pg-version={OLDEST_POSTGRES}"),
            *(f"--exclude={rule}" for rule in excluded),
        ],
        input=sql,
        capture_output=True,
        text=True,
        check=False,
    )
    return [f"{found['rule_name']}: {found['message']}" for found in json.loads(told.stdout or "[]")]


@pytest.mark.parametrize(("directory", "script"), list(later_migrations()))
def test_a_migration_leaves_the_release_before_working(directory: Path, script: Script) -> None:
    expanded_in = getattr(script.module, "expanded_in", None)
    if expanded_in is not None:
        earlier = {
            one.revision for one in ScriptDirectory(str(directory)).walk_revisions("base", script.revision)
        }
        assert expanded_in in earlier - {script.revision}
    assert complaints(sql_of(directory, script), contracts=expanded_in is not None) == []


@pytest.mark.parametrize("name", list(DIRECTORIES))
def test_a_history_is_one_line(name: str) -> None:
    assert len(ScriptDirectory(str(DIRECTORIES[name])).get_heads()) == 1


def test_no_migration_makes_others_wait_for_long() -> None:
    assert 0 < LOCK_TIMEOUT_SECONDS <= 5


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("ALTER TABLE timer DROP COLUMN kind", "ban-drop-column"),
        ("DROP TABLE timer", "ban-drop-table"),
        ("ALTER TABLE timer RENAME COLUMN kind TO sort", "renaming-column"),
        ("ALTER TABLE timer RENAME TO alarm", "renaming-table"),
        ("ALTER TABLE timer ALTER COLUMN kind TYPE integer USING 1", "changing-column-type"),
        ("ALTER TABLE timer ADD COLUMN weight text NOT NULL", "adding-required-field"),
        ("CREATE INDEX timer_kind ON timer (kind)", "require-concurrent-index-creation"),
        ("ALTER TABLE timer ADD CONSTRAINT kind_known CHECK (kind <> '')", "constraint-missing-not-valid"),
        (
            "ALTER TABLE timer ADD CONSTRAINT timer_of FOREIGN KEY (subject) REFERENCES patient",
            "constraint-missing-not-valid",
        ),
    ],
)
def test_what_would_stop_the_release_before_is_found(statement: str, rule: str) -> None:
    assert [found.partition(":")[0] for found in complaints(f"BEGIN; {statement}; COMMIT;")][:1] == [rule]


def test_what_only_adds_is_fine() -> None:
    assert (
        complaints(
            "BEGIN; ALTER TABLE timer ADD COLUMN note text; CREATE TABLE n (id uuid PRIMARY KEY); COMMIT;"
        )
        == []
    )
