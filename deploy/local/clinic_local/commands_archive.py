"""`clinic audit archive`: parts of the audit log that left it. A file is checked by itself, without the database.

What needs the database runs where the archives are: in a container of audit it takes that process's own settings.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from clinic_audit import archive_file, destroying, restoring
from clinic_audit.archive_file import Checked, UnreadableArchiveError
from clinic_audit.archiving import ArchiveError, Archives, Rules
from clinic_audit.settings import ArchiveSettings
from clinic_shared.database import Database
from clinic_shared.encryption.key_store import FILE
from clinic_shared.encryption.keyring import Keyring, KeysUnavailableError
from clinic_shared.secret_files import SECRETS_DIR, with_secret_files
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from clinic_local.audit_keys import (
    DATABASE_URL,
    TAMPERED,
    PublicKeyFile,
    giving_up,
    public_key_of,
)
from clinic_local.encryption_keys import KeyFile
from clinic_local.errors import SetupError
from clinic_local.operations import AsJson, plural, print_json, print_table
from clinic_local.paths import run_dir
from clinic_local.service_database import checked_url, known_url, sqlalchemy_url
from clinic_local.state import root

app = typer.Typer(help="Archived parts of the audit log.", no_args_is_help=True)

_FOLDER = "CLINIC_AUDIT_ARCHIVE_DIR"
_OWN_DATABASE_URL = "CLINIC_DATABASE_URL"
First = Annotated[int, typer.Argument(help="number of its first record, as `list` shows it", min=0)]
Folder = Annotated[
    Path | None, typer.Option("--folder", help=f"folder of the archives; by default {_FOLDER}")
]
Secrets = Annotated[
    Path | None,
    typer.Option("--secrets", help="folder of `clinic secrets init`; by default this system's own"),
]
Result = TypeVar("Result")


@app.command()
def verify(
    files: Annotated[list[Path], typer.Argument(help="archives, each checked by itself")],
    public_key: PublicKeyFile = None,
    *,
    secrets: Secrets = None,
    keys_from_log: Annotated[
        bool,
        typer.Option(
            "--keys-from-log",
            help="open each with what the log's database has: once the keys of its time are withdrawn",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check archives against their signed checkpoints and name what was altered or taken out. Needs no database.

    Without the keys that open the records, only what is missing or out of place is found. Exit status: 0 intact,
    1 altered or incomplete, 4 it could not be checked.
    """
    data_keys = _data_keys(public_key, secrets) if keys_from_log else {}
    with giving_up():
        key = public_key_of(public_key)
        keyring = _keyring(secrets)
        checked = {file: _check(file, key, keyring, data_keys.get(file.name)) for file in files}
    if as_json:
        print_json([_document(file, one) for file, one in checked.items()])
    else:
        for file, one in checked.items():
            _show(file, one)
    if any(one.findings for one in checked.values()):
        raise typer.Exit(TAMPERED)


@app.command("list")
def list_archives(
    public_key: PublicKeyFile = None, *, secrets: Secrets = None, as_json: AsJson = False
) -> None:
    """List the archives: which records they hold, where, and how long they are kept."""
    rows = _with_archives(None, secrets, public_key, lambda archives: archives.listed())
    shown = [
        {
            "first_index": row.first_index,
            "records": row.end_index - row.first_index,
            "file": row.file_name,
            "received_until": row.last_received_at.astimezone(UTC).date().isoformat(),
            "kept_until": row.kept_until.astimezone(UTC).date().isoformat(),
            "jurisdiction": row.jurisdiction,
            "in_log": row.removed_at is None,
            "destroyed": row.destroyed_at is not None,
        }
        for row in rows
    ]
    if as_json:
        print_json(shown)
    else:
        print_table(
            ("first", "records", "file", "received until", "kept until", "law"),
            (
                (
                    str(one["first_index"]),
                    str(one["records"]),
                    one["file"],
                    one["received_until"],
                    "destroyed" if one["destroyed"] else one["kept_until"],
                    one["jurisdiction"],
                )
                for one in shown
            ),
        )


@app.command("now")
def archive_now(public_key: PublicKeyFile = None, *, folder: Folder = None, secrets: Secrets = None) -> None:
    """Archive whole months older than the online period at once, by the rules that audit's settings give.

    A worker with a folder for archives does so every hour; it and this command never work at the same time.
    """
    with giving_up():
        rules = _rules()
        _require_folder(folder)
        if _keyring(secrets) is None:
            raise SetupError("audit", "the keys that seal archives aren't here", "Give --secrets.")
    made = _with_archives(folder, secrets, public_key, lambda archives: archives.archive_old(rules))
    if made:
        print(f"{plural(made, 'archive')} made; which records they hold: clinic audit archive list")
    else:
        print(
            f"Nothing archived: no whole month is older than {rules.online.days} days, or a worker is at it now."
        )


@app.command()
def restore(
    first: First, public_key: PublicKeyFile = None, *, folder: Folder = None, secrets: Secrets = None
) -> None:
    """Put an archive's records beside the log, where every search finds them, once each was verified."""
    restored = _with_archives(
        folder, secrets, public_key, lambda archives: restoring.restore(archives, first)
    )
    print(
        f"{plural(restored, 'record')} restored; when done with them: clinic audit archive put-away {first}"
    )


@app.command("put-away")
def put_away(first: First, public_key: PublicKeyFile = None, *, secrets: Secrets = None) -> None:
    """Take restored records out again; the archive stays."""
    _with_archives(None, secrets, public_key, lambda archives: restoring.put_away(archives, first))
    print("Put away.")


@app.command()
def destroy(
    first: First,
    reason: Annotated[str, typer.Option("--reason", help="kept in the audit log")],
    public_key: PublicKeyFile = None,
    *,
    folder: Folder = None,
    secrets: Secrets = None,
) -> None:
    """Destroy an archive whose time is over: its key and its file. What it proved stays proven; copies are yours to delete."""
    with giving_up():
        _require_folder(folder)
    done = _with_archives(
        folder, secrets, public_key, lambda archives: destroying.destroy(archives, first, reason=reason)
    )
    print("Destroyed." if done else "It was destroyed before.")


def _require_folder(folder: Path | None) -> None:
    if folder is None and not known_url(_FOLDER):
        raise SetupError("audit", "where archives are kept isn't known", f"Give --folder or {_FOLDER}.")


def _rules() -> Rules:
    try:
        return Rules.of(ArchiveSettings(_secrets_dir=os.environ.get(SECRETS_DIR)))
    except ValidationError as error:
        raise SetupError("audit", "; ".join(str(each["msg"]) for each in error.errors())) from None


def _data_keys(public_key: Path | None, secrets: Path | None) -> Mapping[str, bytes]:
    """Return what opens each archive, by its file's name: a rotation of keys changes it here and not in the file."""
    rows = _with_archives(None, secrets, public_key, lambda archives: archives.listed())
    return {row.file_name: bytes(row.data_key) for row in rows if row.data_key is not None}


def _check(
    file: Path, public_key: Ed25519PublicKey, keyring: Keyring | None, data_key: bytes | None
) -> Checked:
    try:
        return archive_file.check(file.read_bytes(), public_key, keyring, data_key=data_key)
    except OSError as error:
        raise SetupError("audit", f"{file} can't be read: {error.strerror}") from error
    except UnreadableArchiveError as error:
        raise SetupError("audit", f"{file} can't be checked: {error}") from error
    except KeysUnavailableError as error:
        raise SetupError(
            "audit",
            f"{file} was sealed with keys that aren't here",
            "Give --secrets, and after a rotation of keys --keys-from-log.",
        ) from error


def _keyring(secrets: Path | None) -> Keyring | None:
    file = KeyFile("audit", (secrets or run_dir(root()) / "secrets") / "audit" / FILE)
    own = os.environ.get(SECRETS_DIR)
    if secrets is None and own is not None:
        file = KeyFile("audit", Path(own) / FILE)
    return file.keyring() if secrets is not None or file.file.exists() else None


def _database_url() -> str:
    own = with_secret_files(os.environ).get(_OWN_DATABASE_URL) if SECRETS_DIR in os.environ else None
    if own is not None and not known_url(DATABASE_URL):
        return checked_url("audit", _OWN_DATABASE_URL, own)
    return sqlalchemy_url("audit", DATABASE_URL)


def _with_archives(
    folder: Path | None,
    secrets: Path | None,
    public_key: Path | None,
    work: Callable[[Archives], Awaitable[Result]],
) -> Result:
    """Do something with the archives of the log whose database is configured."""
    with giving_up():
        given = folder or known_url(_FOLDER)
        url, key, keyring = (
            _database_url(),
            public_key_of(public_key),
            _keyring(secrets),
        )

        async def do() -> Result:
            database = Database(url, service="audit", pool_size=2, keyring=keyring)
            try:
                return await work(Archives(database=database, public_key=key, folder=Path(given or ".")))
            finally:
                await database.dispose()

        try:
            return asyncio.run(do())
        except ArchiveError as error:
            print(error, file=sys.stderr)
            raise typer.Exit(TAMPERED) from error
        except SQLAlchemyError as error:
            raise SetupError("audit", f"its database can't be used: {type(error).__name__}") from error


def _document(file: Path, checked: Checked) -> dict[str, object]:
    return {
        "file": str(file),
        "intact": not checked.findings,
        "opened": checked.opened,
        "first_index": checked.manifest.first_index,
        "records": checked.manifest.end_index - checked.manifest.first_index,
        "findings": [{"kind": finding.kind, "text": finding.text} for finding in checked.findings],
    }


def _show(file: Path, checked: Checked) -> None:
    manifest = checked.manifest
    records = plural(manifest.end_index - manifest.first_index, "record")
    closed = "" if checked.opened else "; not opened: the keys aren't here"
    state = "altered or incomplete" if checked.findings else "intact"
    print(f"{file.name}: {records} from {manifest.first_index}, {state}{closed}")
    if checked.findings:
        print_table(("finding", "what"), ((finding.kind, finding.text) for finding in checked.findings))
