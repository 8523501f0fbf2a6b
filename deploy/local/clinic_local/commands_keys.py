"""`clinic keys`: what encrypts data at rest, and replacing it without stopping anything.

A rotation is four steps, of which each can be repeated: announce a key, so that every process can read what it will
write; use it; bring what the old one wrapped under it; withdraw the old one once nothing needs it.
"""

import asyncio
import importlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer
from clinic_audit.search import Wanted, find
from clinic_patients import erasing
from clinic_patients.protection import RetentionClass
from clinic_shared import contracts
from clinic_shared.audit import Action
from clinic_shared.database import Database
from clinic_shared.encryption import backlog
from clinic_shared.encryption.backlog import Kind
from clinic_shared.encryption.key_store import (
    FILE,
    StoredKey,
    StoredKeys,
    in_use,
    without_key,
    write_file,
)
from clinic_shared.service import Service
from sqlalchemy import Row
from sqlalchemy.exc import SQLAlchemyError

from clinic_local.encryption_keys import KeyFile, ProviderName
from clinic_local.errors import SetupError
from clinic_local.operations import AsJson, plural, print_json, print_table
from clinic_local.paths import run_dir
from clinic_local.service_database import sqlalchemy_url
from clinic_local.state import root

app = typer.Typer(help="Keys that encrypt data at rest.", no_args_is_help=True)

SPREAD = timedelta(minutes=2)
"""How long an announced key waits: until files have reached every machine and every process has read them."""

PATIENTS = "patients"
LEDGER_PAGE = 1000

FORGOTTEN = timedelta(days=1)
"""How long answers are kept for requests that are sent again: sealed under the key of their time, and never rewrapped."""

Names = Annotated[list[str] | None, typer.Argument(metavar="[SERVICE]...", help="all by default")]
Folder = Annotated[
    Path | None,
    typer.Option("--secrets", help="folder of `clinic secrets init`; by default this system's own"),
]
Result = TypeVar("Result")
Work = Callable[[Database, asyncio.Event, Sequence[Kind]], Awaitable[Result]]


@dataclass(frozen=True)
class Erased:
    """An erasure as the audit log recorded it."""

    erasure_id: UUID
    patient_id: UUID
    retention_class: RetentionClass
    reason: str

    @classmethod
    def of(cls, row: Row[Any]) -> "Erased":
        record = json.loads(row.record)
        retention_class = RetentionClass(record["details"]["class"])
        return cls(UUID(row.entity_id), row.patient_id, retention_class, record["reason"])


@app.command()
def status(services: Names = None, *, secrets: Folder = None, as_json: AsJson = False) -> None:
    """Show each service's keys, and how many stored rows are under which. Reads whole tables."""
    shown = [line for one in _files(services, secrets) for line in _lines(one)]
    if as_json:
        print_json([vars(line) for line in shown])
        return
    print_table(
        ("service", "key", "state", "created", "rows"),
        ((line.service, line.key, line.state, line.created_on, str(line.rows)) for line in shown),
    )


@dataclass(frozen=True)
class Line:
    """One key of a service, or what it has in clear."""

    service: str
    key: str
    state: str
    created_on: str
    rows: int


def _lines(one: KeyFile) -> list[Line]:
    stored, counted = one.read(), _counted(one)
    keys = [
        Line(
            one.service,
            key.key_id,
            _state(stored, key),
            key.created_at.date().isoformat(),
            _rows(counted, key.key_id),
        )
        for key in stored.encryption
    ]
    return [*keys, Line(one.service, "", "in clear", "", _rows(counted, None))]


def _state(stored: StoredKeys, key: StoredKey) -> str:
    current = in_use(stored)
    if key == current:
        return "in use"
    return "announced" if key.created_at > current.created_at else "old"


def _rows(counted: dict[str, dict[str | None, int]], key_id: str | None) -> int:
    return sum(by_key.get(key_id, 0) for by_key in counted.values())


def _tables(counted: dict[str, dict[str | None, int]], key_id: str) -> str:
    """Say where rows under a key are."""
    rows = {table: by_key.get(key_id, 0) for table, by_key in counted.items()}
    return ", ".join(f"{table} ({plural(count, 'row')})" for table, count in sorted(rows.items()) if count)


@app.command()
def rotate(services: Names = None, *, secrets: Folder = None) -> None:
    """Take the next step that is due: announce a new key, or use the one that was announced two minutes ago."""
    for one in _files(services, secrets):
        print(f"{one.service}: {_next_step(one, datetime.now(UTC))}")


def _next_step(one: KeyFile, now: datetime) -> str:
    stored = one.read()
    newest = max(stored.encryption, key=lambda key: key.created_at)
    if newest.key_id == in_use(stored).key_id:
        one.announce_key()
        return f"a new key is announced; it can be used from {now + SPREAD:%H:%M:%S} UTC on."
    if now < newest.created_at + SPREAD:
        return f"{newest.key_id} was announced; it can be used from {newest.created_at + SPREAD:%H:%M:%S} UTC on."
    others = [key for key in stored.encryption if key.key_id != newest.key_id]
    write_file(one.file, stored.model_copy(update={"encryption": [*others, newest]}))
    return f"{newest.key_id} is used from now on; what older ones wrapped: clinic keys rewrap"


@app.command()
def rewrap(services: Names = None, *, secrets: Folder = None) -> None:
    """Bring the keys of all stored rows under the current one, in batches, while everything runs."""
    for one in _files(services, secrets):
        changed = _with_database(one, backlog.rewrap_all)
        print(f"{one.service}: {plural(changed, 'row')} brought under the current key.")


@app.command()
def retire(services: Names = None, *, secrets: Folder = None) -> None:
    """Withdraw the old keys under which nothing is stored any more, a day after they were replaced at the earliest.

    Backups that need them can then not be read.
    """
    for one in _files(services, secrets):
        stored, counted = one.read(), _counted(one)
        unused = [
            key.key_id
            for key in stored.encryption
            if key.created_at < in_use(stored).created_at < datetime.now(UTC) - FORGOTTEN
            and not _rows(counted, key.key_id)
        ]
        for key_id in unused:
            stored = without_key(stored, key_id)
        if unused:
            write_file(one.file, stored)
        print(f"{one.service}: {plural(len(unused), 'key')} withdrawn.")
        for key in stored.encryption:
            if key.created_at < in_use(stored).created_at and (needed_by := _tables(counted, key.key_id)):
                print(f"{one.service}: {key.key_id} is still needed by {needed_by}.")


@app.command()
def wrap(
    provider: Annotated[ProviderName, typer.Argument(help="who guards the keys from now on")],
    services: Names = None,
    *,
    secrets: Folder = None,
) -> None:
    """Have Vault or a KMS wrap the keys (CLINIC_KEY_SERVICE_URL, _KEY, _SECRET), or take them back into the file.

    The keys stay the same: nothing that is stored changes, and processes go on.
    """
    for one in _files(services, secrets):
        moved = one.wrap_by(provider)
        print(f"{one.service}: {'wrapped by' if moved else 'already with'} {provider}.")


@app.command("replay-erasures")
def replay_erasures(*, secrets: Folder = None) -> None:
    """After a restore of patients' database: erase again what the audit log says was erased since.

    Before anybody is let in: until then, the backup has brought back what somebody had a right to have forgotten.
    """
    ledger = asyncio.run(_ledger())
    [patients] = _files([PATIENTS], secrets)

    async def erase(database: Database, *_: object) -> int:
        return sum([await _erase_again(database, entry) for entry in ledger])

    done = _with_database(patients, erase)
    print(f"{plural(len(ledger), 'erasure')} in the audit log; {done} had to be done again.")


async def _ledger() -> list[Erased]:
    """Return the erasures that the audit log proves, in its order."""
    database = Database(sqlalchemy_url("keys", "CLINIC_AUDIT_DATABASE_URL"), service="audit", pool_size=1)
    wanted = Wanted(producer=PATIENTS, entity_type=erasing.RECORD, action=Action.DELETE.value)
    found: dict[UUID, Erased] = {}
    try:
        async with database.transaction() as tx:
            after: int | None = None
            while rows := await find(tx, wanted, after=after, limit=LEDGER_PAGE):
                found |= {UUID(row.entity_id): Erased.of(row) for row in rows}
                after = rows[-1].leaf_index
    except SQLAlchemyError as error:
        raise SetupError("keys", f"audit's database can't be read: {type(error).__name__}") from error
    finally:
        await database.dispose()
    return list(found.values())


async def _erase_again(database: Database, entry: Erased) -> bool:
    async with database.transaction() as tx:
        return await erasing.erase(
            tx,
            entry.patient_id,
            entry.retention_class,
            erasure_id=entry.erasure_id,
            reason=f"done again after a restore: {entry.reason}",
        )


def _files(services: list[str] | None, secrets: Path | None) -> list[KeyFile]:
    known = contracts.load().services
    for name in services or []:
        if name not in known:
            raise SetupError("keys", f"there is no service {name}", f"Services: {', '.join(known)}")
    folder = secrets or run_dir(root()) / "secrets"
    return [KeyFile(name, folder / name / FILE) for name in services or known]


def _counted(one: KeyFile) -> dict[str, dict[str | None, int]]:
    return _with_database(one, lambda database, _, kinds: backlog.count_by_key(database, kinds))


def _with_database(one: KeyFile, work: Work[Result]) -> Result:
    """Do something in a service's database, with its keys."""
    package = contracts.load().services[one.service].package
    service: Service = importlib.import_module(f"{package}.app").service
    url = sqlalchemy_url("keys", f"CLINIC_{one.service.upper().replace('-', '_')}_DATABASE_URL")

    keyring = one.keyring()

    async def do() -> Result:
        database = Database(url, service=one.service, pool_size=1, keyring=keyring)
        try:
            return await work(database, asyncio.Event(), (*backlog.KINDS, *service.encrypted))
        except SQLAlchemyError as error:
            raise SetupError(
                "keys", f"{one.service}'s database can't be used: {type(error).__name__}"
            ) from error
        finally:
            await database.dispose()

    return asyncio.run(do())
