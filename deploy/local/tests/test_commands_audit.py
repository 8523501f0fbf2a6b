"""`clinic audit verify`: what somebody with the database's password could do to the log, and that it shows."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from clinic_audit.app import service
from clinic_audit.recording import IncomingRecord, record_batch
from clinic_audit.signing import Signer, sign_checkpoint
from clinic_local.paths import write_private
from clinic_local.state import write_env
from clinic_shared.audit import Action, AuditEntry, canonical_record, leaf_hash
from clinic_shared.context import Context
from clinic_shared.ids import uuid7
from clinic_shared.testing import MONDAY, ServiceHarness, service_fixture
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .conftest import Clinic

audit = service_fixture(service)


def record(pseq: int) -> IncomingRecord:
    entry = AuditEntry(action=Action.READ, resource_type="Patient", patient_id=uuid7())
    content = canonical_record(entry, producer="scheduling", recorded_at=MONDAY, context=Context())
    return IncomingRecord(producer="scheduling", pseq=pseq, leaf_hash=leaf_hash(content), record=content)


async def take(audit: ServiceHarness, *numbers: int) -> None:
    async with audit.runtime.database.transaction() as tx:
        await record_batch(tx, [record(number) for number in numbers])


async def sign(audit: ServiceHarness) -> None:
    async with audit.runtime.database.transaction() as tx:
        await sign_checkpoint(tx, audit.runtime.get(Signer))


def url_of(audit: ServiceHarness) -> str:
    return audit.runtime.settings.database_url.get_secret_value()


@dataclass
class Log:
    """A log of ten records with two checkpoints, and the files of its keys."""

    audit: ServiceHarness
    public_key: Path
    signing_key: Path

    def tamper(self, *statements: str) -> None:
        with psycopg.connect(url_of(self.audit), autocommit=True) as connection:
            connection.execute("ALTER TABLE audit_record DISABLE TRIGGER USER")
            for statement in statements:
                connection.execute(statement)


def pem_of(key: Ed25519PrivateKey) -> str:
    private = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()).decode()


@pytest.fixture
async def log(audit: ServiceHarness, clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    for start in (0, 5):
        await take(audit, *range(start, start + 5))
        await sign(audit)
    signer = audit.runtime.get(Signer)
    public, private = tmp_path / "public.pem", tmp_path / "private.pem"
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(signer.public_key.public_bytes(serialization.Encoding.PEM, form))
    write_private(private, pem_of(signer._key))
    monkeypatch.setenv("CLINIC_AUDIT_DATABASE_URL", url_of(audit))
    return Log(audit, public, private)


async def test_an_untouched_log_is_intact(clinic: Clinic, log: Log) -> None:
    verified = await clinic("audit", "verify", "--public-key", log.public_key)
    assert (verified.status, verified.err) == (0, "")
    assert verified.out.startswith("10 records of 1 producer, root ")
    assert verified.out.endswith("Intact.\n")
    told = (await clinic("audit", "verify", "--public-key", log.public_key, "--json")).document
    assert (told["intact"], told["records"], told["checkpoints"], told["signed_size"]) == (True, 10, 2, 10)
    assert (told["findings"], told["signed_at"]) == ([], MONDAY.isoformat())


TAMPERINGS = {
    "altered": ("UPDATE audit_record SET record = record || ' ' WHERE leaf_index = 3", "record 3"),
    "missing": ("DELETE FROM audit_record WHERE leaf_index = 9", "shorter than its checkpoint"),
    "inserted": (
        (
            "INSERT INTO audit_record SELECT 10, producer, 10, leaf_hash, record, record_id, recorded_at,"
            " received_at, action, outcome, agent, entity_type, entity_id, patient_id"
            " FROM audit_record WHERE leaf_index = 0"
        ),
        "11 records",
    ),
}


@pytest.mark.parametrize("kind", TAMPERINGS)
async def test_tampering_is_found_and_named(clinic: Clinic, log: Log, kind: str) -> None:
    statement, says = TAMPERINGS[kind]
    log.tamper(statement)
    verified = await clinic("audit", "verify", "--public-key", log.public_key)
    assert verified.status == 1
    assert any(line.startswith(kind) and says in line for line in verified.out.splitlines()), verified.out
    assert "Intact" not in verified.out
    told = await clinic("audit", "verify", "--public-key", log.public_key, "--json")
    assert (told.status, told.document["intact"]) == (1, False)
    assert kind in {finding["kind"] for finding in told.document["findings"]}


async def test_checkpoints_of_another_key_are_false(clinic: Clinic, log: Log, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    write_private(other, pem_of(Ed25519PrivateKey.generate()))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CLINIC_AUDIT_SIGNING_KEY_FILE", str(other))
        verified = await clinic("audit", "verify")
    assert verified.status == 1
    assert "checkpoint of size 5 has a false signature" in verified.out
    assert "not the public key of this log" in verified.out


async def test_the_public_key_comes_from_the_signing_key(
    clinic: Clinic, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLINIC_AUDIT_SIGNING_KEY_FILE", str(log.signing_key))
    assert (await clinic("audit", "verify")).status == 0
    assert (await clinic("audit", "public-key")).out == log.public_key.read_text()


async def test_the_log_that_was_made_here_needs_no_options(
    clinic: Clinic, log: Log, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CLINIC_AUDIT_DATABASE_URL")
    write_env(tmp_path, {"CLINIC_AUDIT_DATABASE_URL": url_of(log.audit)})
    key = tmp_path / ".run" / "secrets" / "audit" / "checkpoint-key.pem"
    assert (await clinic("audit", "verify")).status == 4
    write_private(key, log.signing_key.read_text())
    assert (await clinic("audit", "verify")).status == 0


async def test_nothing_is_written(clinic: Clinic, log: Log) -> None:
    database = url_of(log.audit).rpartition("/")[2]
    log.tamper(f'ALTER DATABASE "{database}" SET default_transaction_read_only = on')
    assert (await clinic("audit", "verify", "--public-key", log.public_key)).status == 0


async def test_records_that_are_taken_in_meanwhile_are_no_findings(clinic: Clinic, log: Log) -> None:
    stop = asyncio.Event()

    async def grow() -> int:
        number = 10
        while not stop.is_set():
            await take(log.audit, number)
            number += 1
        return number

    growing = asyncio.create_task(grow())
    for _ in range(5):
        verified = await clinic("audit", "verify", "--public-key", log.public_key)
        assert verified.status == 0, verified.out
    stop.set()
    assert await growing > 11, "the log grew while it was verified"


Break = Callable[[pytest.MonkeyPatch, Log, Path], list[str]]


def no_database(patched: pytest.MonkeyPatch, log: Log, _: Path) -> list[str]:
    patched.setenv("CLINIC_AUDIT_DATABASE_URL", "postgresql://clinic_audit:hidden-password@127.0.0.1:1/x")
    return ["--public-key", str(log.public_key)]


def another_database(patched: pytest.MonkeyPatch, log: Log, _: Path) -> list[str]:
    patched.setenv("CLINIC_AUDIT_DATABASE_URL", url_of(log.audit).rpartition("/")[0] + "/postgres")
    return ["--public-key", str(log.public_key)]


def no_url(patched: pytest.MonkeyPatch, log: Log, _: Path) -> list[str]:
    patched.delenv("CLINIC_AUDIT_DATABASE_URL")
    return ["--public-key", str(log.public_key)]


def another_kind_of_url(patched: pytest.MonkeyPatch, log: Log, _: Path) -> list[str]:
    patched.setenv("CLINIC_AUDIT_DATABASE_URL", "mysql://somebody:hidden-password@127.0.0.1/x")
    return ["--public-key", str(log.public_key)]


def no_port(patched: pytest.MonkeyPatch, log: Log, _: Path) -> list[str]:
    patched.setenv("CLINIC_AUDIT_DATABASE_URL", "postgresql://clinic_audit:hidden-password@127.0.0.1:port/x")
    return ["--public-key", str(log.public_key)]


def no_key(_patched: pytest.MonkeyPatch, _log: Log, _: Path) -> list[str]:
    return []


def no_key_file(_patched: pytest.MonkeyPatch, _log: Log, tmp_path: Path) -> list[str]:
    return ["--public-key", str(tmp_path / "nothing.pem")]


def a_private_key(_patched: pytest.MonkeyPatch, log: Log, _: Path) -> list[str]:
    return ["--public-key", str(log.signing_key)]


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (no_database, "audit: its database can't be read: "),
        (another_database, 'audit: its database can\'t be read: relation "checkpoint" does not exist'),
        (no_url, "audit: nothing has run here and CLINIC_AUDIT_DATABASE_URL isn't set"),
        (another_kind_of_url, "audit: CLINIC_AUDIT_DATABASE_URL isn't a postgresql:// URL"),
        (no_port, "audit: CLINIC_AUDIT_DATABASE_URL isn't a postgresql:// URL"),
        (no_key, "audit: the public key is needed"),
        (no_key_file, "nothing.pem can't be read: No such file or directory"),
        (a_private_key, "private.pem isn't a public key in PEM"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_what_could_not_be_checked_is_no_answer(
    clinic: Clinic, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: Break, says: str
) -> None:
    options = broken(monkeypatch, log, tmp_path)
    refused = await clinic("audit", "verify", *options)
    assert (refused.status, refused.out) == (4, "")
    assert says in refused.err.splitlines()[0]
    assert "hidden-password" not in refused.err


async def test_the_service_is_not_needed(clinic: Clinic, log: Log) -> None:
    await log.audit.runtime.database.dispose()
    assert (await clinic("audit", "verify", "--public-key", log.public_key)).status == 0
