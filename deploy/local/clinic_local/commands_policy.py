"""`clinic policy`: what another access policy would change, before it is switched.

Read straight from the audit log's database: who tries a policy needs no right to read the records, and is
shown counts and ids of records only.
"""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
import yaml
from clinic_audit import store
from clinic_audit.policy_trial import Change, Trial, try_policy
from clinic_shared import contracts
from clinic_shared.database import Database
from clinic_shared.policy import Policy, current, load
from pydantic import ValidationError
from rich.console import Console
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from clinic_local.errors import SetupError
from clinic_local.operations import AsJson, plural, print_json, print_table
from clinic_local.service_database import sqlalchemy_url

app = typer.Typer(help="The access policy (contracts/policy/access.yaml).", no_args_is_help=True)

AT_MOST = 200_000
_DATABASE_URL = "CLINIC_AUDIT_DATABASE_URL"


@app.callback()
def _group() -> None:
    """Keep the subcommand's name though there is only one."""


@app.command("try")
def try_file(
    file: Annotated[Path, typer.Argument(help="The proposed policy, as access.yaml is")],
    days: Annotated[int, typer.Option(min=1, max=366, help="How far to look back")] = 7,
    *,
    as_json: AsJson = False,
) -> None:
    """Run a proposed policy against what happened lately; list what it would newly allow or deny.

    Exit status: 0 nothing would change, 1 something would, 2 the file is no policy or there is no log to read.
    """
    try:
        proposed = _read(file)
        trial = asyncio.run(_try(proposed, timedelta(days=days)))
    except SetupError as error:
        print(error.report(), file=sys.stderr)
        raise typer.Exit(2) from error
    if as_json:
        print_json(_document(proposed, trial))
    else:
        _show(proposed, trial, days)
    if trial.changes:
        raise typer.Exit(1)


def _read(file: Path) -> Policy:
    try:
        return load(contracts.CONTRACTS_DIR, file)
    except OSError as error:
        raise SetupError("policy", f"{file} can't be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise SetupError("policy", f"{file} is no YAML: {error}") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5])
        raise SetupError("policy", f"{file} is no policy: {wrong}", "Compare with access.yaml.") from error


async def _try(proposed: Policy, back: timedelta) -> Trial:
    database = Database(sqlalchemy_url("audit", _DATABASE_URL), service="audit", pool_size=1)
    try:
        async with database.transaction() as tx:
            await tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            since = datetime.now(UTC) - back
            records = [record async for record in store.stream_since(tx, since, at_most=AT_MOST)]
    except SQLAlchemyError as error:
        raise SetupError("policy", "the audit log can't be read", f"Look at {_DATABASE_URL}.") from error
    finally:
        await database.dispose()
    return try_policy(proposed, records)


def _document(proposed: Policy, trial: Trial) -> dict[str, object]:
    return {
        "policy": current().version,
        "proposed": proposed.version,
        "judged": trial.judged,
        "without_decision": trial.without_decision,
        "changes": [_as_document(change) for change in trial.changes],
    }


def _as_document(change: Change) -> dict[str, object]:
    return {
        "permission": change.permission,
        "roles": list(change.roles),
        "would_be": _word(change),
        "records": change.records,
        "people": len(change.people),
        "patients": len(change.patients),
        "examples": change.examples,
    }


def _word(change: Change) -> str:
    return "allowed" if change.would_be_allowed else "denied"


def _show(proposed: Policy, trial: Trial, days: int) -> None:
    print(
        f"{plural(trial.judged, 'decision')} of {plural(days, 'day')} tried: version {proposed.version}"
        f" against {current().version}"
    )
    if trial.judged + trial.without_decision == AT_MOST:
        print(f"Only the newest {AT_MOST} records were looked at.")
    if not trial.changes:
        Console(highlight=False).print("Nothing would change.", style="green")
        return
    print_table(
        ("newly", "permission", "roles", "times", "people", "patients", "for example"),
        (
            (
                _word(change),
                change.permission,
                " ".join(change.roles),
                str(change.records),
                str(len(change.people)),
                str(len(change.patients)),
                change.examples[0],
            )
            for change in trial.changes
        ),
    )
