"""`clinic audit`: is the audit log whole? Read straight from its database, so that no service need be trusted.

The log is compared with its own hashes, its producers' sequences and the checkpoints that were signed.
Whoever can change the database can't sign: only the public key is needed here.
"""

import asyncio
import os
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Never

import typer
from clinic_audit import store
from clinic_audit.signing import INTERVAL_SECONDS
from clinic_audit.verification import MAX_FINDINGS, Report, verify_log
from clinic_audit.witnessing import ContradictionError, Statement, Witness, read_statements
from clinic_shared.database import Database
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from rich.console import Console
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from clinic_local import commands_archive
from clinic_local.audit_keys import DATABASE_URL, TAMPERED, PublicKeyFile, giving_up, public_key_of
from clinic_local.errors import SetupError
from clinic_local.operations import AsJson, operator, plural, print_json, print_table
from clinic_local.paths import run_dir
from clinic_local.service_database import sqlalchemy_url
from clinic_local.state import read_env, root

app = typer.Typer(help="The audit log, checked without the audit service.", no_args_is_help=True)
app.add_typer(commands_archive.app, name="archive")


WITNESS_FILE = Path("witness") / "checkpoints.jsonl"
WitnessFile = Annotated[
    Path | None, typer.Option("--witness", help="file of a witness; by default this system's own")
]


@dataclass(frozen=True)
class _Verified:
    """What was found, and how far the log is signed: newer records have only hashes and sequences."""

    report: Report
    signed_size: int
    signed_at: datetime | None


@app.command()
def verify(public_key: PublicKeyFile = None, *, witness: WitnessFile = None, as_json: AsJson = False) -> None:
    """Check every record, sequence and checkpoint. Needs the database, not the audit service.

    With what a witness remembers, every altered, missing, inserted or reordered record is named, whoever
    rewrote the log. Exit status: 0 intact, 1 altered or incomplete, 4 it could not be checked.
    """
    with giving_up():
        key = public_key_of(public_key)
        url = sqlalchemy_url("audit", DATABASE_URL)
        verified = asyncio.run(_verify(url, key, _witnessed(witness, key)))
    if as_json:
        print_json(_document(verified))
    else:
        _show(verified)
    if not verified.report.intact:
        raise typer.Exit(TAMPERED)


@app.command()
def witness(
    file: Annotated[Path, typer.Argument(help="where checkpoints are remembered: only ever appended to")],
    public_key: PublicKeyFile = None,
    *,
    once: Annotated[bool, typer.Option(help="take what there is, and end")] = False,
) -> None:
    """Remember signed checkpoints on this machine, apart from the log: run it where its administrators can't write.

    Exit status: 1 when a checkpoint contradicts what was witnessed: such a log was rewritten or restored. With
    --once 4 when it could not be asked; without, that is told and tried again.
    """
    with giving_up():
        key = public_key_of(public_key)
    try:
        remembered = Witness(file, key)
        if once:
            with giving_up():
                _take_new(remembered)
        else:
            _watch(remembered)
    except ContradictionError as error:
        print(f"The log contradicts {file}: {error}", file=sys.stderr)
        raise typer.Exit(TAMPERED) from error
    print(f"{plural(remembered.size, 'record')} witnessed in {file}.")


def _watch(remembered: Witness) -> Never:
    """Go on for as long as nothing contradicts: what can't be asked now was signed to be asked later."""
    while True:
        try:
            _take_new(remembered)
        except SetupError as error:
            print(error.report(), file=sys.stderr, flush=True)
        time.sleep(INTERVAL_SECONDS)


def _take_new(remembered: Witness) -> None:
    with operator() as caller:
        while following := caller.get("/v1/audit/checkpoints", after=remembered.size):
            for document in following:
                remembered.take(Statement.of_json(document))


@app.command("public-key")
def print_public_key() -> None:
    """Print the public key (PEM), for an auditor to keep and to verify with: --public-key."""
    with giving_up():
        key = public_key_of(None)
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    print(pem.decode(), end="")


def _witnessed(given: Path | None, public_key: Ed25519PublicKey) -> list[Statement] | None:
    """Read the file that was given, else this system's own where there is one; it must itself be sound."""
    own = run_dir(root()) / WITNESS_FILE
    # As with the key: this system's witness knows nothing of another one's log.
    elsewhere = os.environ.get(DATABASE_URL) not in {None, read_env(root()).get(DATABASE_URL)}
    file = given or (own if own.exists() and not elsewhere else None)
    if file is None:
        return None
    if not file.exists():
        raise SetupError("audit", f"{file} can't be read: no such file")
    try:
        Witness(file, public_key)
        return list(read_statements(file))
    except ContradictionError as error:
        raise SetupError(
            "audit",
            f"the witness file {file} doesn't hold: {error}",
            "Take another witness's file: --witness",
        ) from error


async def _verify(url: str, public_key: Ed25519PublicKey, witnessed: list[Statement] | None) -> _Verified:
    database = Database(url, service="audit", pool_size=1)
    try:
        async with database.transaction() as tx:
            # One snapshot: records that are taken in meanwhile are neither missing nor inserted.
            await tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            checkpoints = await store.list_checkpoints(tx)
            last = checkpoints[-1] if checkpoints else None
            return _Verified(
                report=await verify_log(tx, public_key, witnessed=witnessed),
                signed_size=last.tree_size if last else 0,
                signed_at=last.signed_at.astimezone(UTC) if last else None,
            )
    except SQLAlchemyError as error:
        raise SetupError(
            "audit", f"its database can't be read: {_reason(error)}", f"Look at {DATABASE_URL}."
        ) from error
    finally:
        await database.dispose()


def _reason(error: SQLAlchemyError) -> str:
    original = error.orig if isinstance(error, DBAPIError) else error
    return next(iter(str(original).splitlines()), type(error).__name__)


def _document(verified: _Verified) -> dict[str, object]:
    report = verified.report
    return {
        "intact": report.intact,
        "records": report.records,
        "checkpoints": report.checkpoints,
        "signed_size": verified.signed_size,
        "signed_at": verified.signed_at.isoformat() if verified.signed_at else None,
        "witnessed": report.witnessed,
        "producers": report.producers,
        "root_hash": report.root_hash.hex(),
        "findings": [asdict(finding) for finding in report.findings],
    }


def _show(verified: _Verified) -> None:
    report = verified.report
    producers = plural(len(report.producers), "producer")
    print(f"{plural(report.records, 'record')} of {producers}, root {report.root_hash.hex()}")
    signed = "nothing signed yet"
    if verified.signed_at is not None:
        signed = (
            f"the first {verified.signed_size} signed, last at {verified.signed_at:%Y-%m-%d %H:%M:%S} UTC"
        )
    print(f"{plural(report.checkpoints, 'checkpoint')}: {signed}")
    if report.witnessed:
        print(f"{plural(report.witnessed, 'record')} compared with the witness")
    console = Console(highlight=False, soft_wrap=True)
    if report.intact:
        console.print("Intact.", style="green")
        return
    print()
    print_table(("finding", "what"), ((finding.kind, finding.text) for finding in report.findings))
    if len(report.findings) == MAX_FINDINGS:
        print(f"Only the first {MAX_FINDINGS} findings are shown.")
    if any(finding.kind == "signature" for finding in report.findings):
        print("False signatures may also mean that this is not the public key of this log.")
    console.print("The log was altered or is incomplete.", style="bold red")
