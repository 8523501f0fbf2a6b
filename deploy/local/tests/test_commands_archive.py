"""`clinic audit archive`: an archive is checked by itself, and what somebody did to it is named."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from clinic_audit.app import service
from clinic_audit.archiving import Archives, Rules
from clinic_audit.recording import IncomingRecord, record_batch
from clinic_audit.signing import Signer, sign_checkpoint
from clinic_shared.audit import Action, AuditEntry, canonical_record, leaf_hash
from clinic_shared.context import Context
from clinic_shared.encryption.key_store import FILE, keys_in_clear, new_file
from clinic_shared.ids import uuid7
from clinic_shared.testing import MONDAY, ServiceHarness, service_fixture
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import text

from .conftest import Clinic

audit = service_fixture(service)


def record(pseq: int) -> IncomingRecord:
    entry = AuditEntry(action=Action.READ, resource_type="Patient", patient_id=uuid7())
    content = canonical_record(entry, producer="scheduling", recorded_at=MONDAY, context=Context())
    return IncomingRecord(producer="scheduling", pseq=pseq, leaf_hash=leaf_hash(content), record=content)


@dataclass
class Archived:
    """A log whose ten records are all in an archive, and the files of its keys."""

    audit: ServiceHarness
    file: Path
    public_key: Path
    secrets: Path

    async def restored(self) -> int:
        async with self.audit.runtime.database.transaction() as tx:
            row = await tx.fetch_one(text("SELECT count(*) FROM audit_record"))
        return 0 if row is None else int(row[0])


@pytest.fixture
async def archived(
    audit: ServiceHarness, clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Archived:
    secrets, public, folder = tmp_path / "secrets", tmp_path / "public.pem", tmp_path / "archives"
    (secrets / "audit").mkdir(parents=True)
    (secrets / "audit" / FILE).write_text(new_file())
    database, key = audit.runtime.database, audit.runtime.get(Signer).public_key
    database.keyring.take(keys_in_clear(secrets / "audit" / FILE))
    public.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    audit.clock.advance(seconds=(datetime.now(UTC) - timedelta(days=500) - audit.clock.now()).total_seconds())
    async with database.transaction() as tx:
        await record_batch(tx, [record(n) for n in range(10)])
        await sign_checkpoint(tx, audit.runtime.get(Signer))
    audit.clock.advance(days=500)
    rules = Rules(online=timedelta(days=400), kept_years=6, jurisdiction="hipaa")
    assert await Archives(database=database, public_key=key, folder=folder).archive_old(rules) == 1
    monkeypatch.setenv("CLINIC_AUDIT_DATABASE_URL", audit.runtime.settings.database_url.get_secret_value())
    monkeypatch.setenv("CLINIC_AUDIT_ARCHIVE_DIR", str(folder))
    [file] = folder.iterdir()
    return Archived(audit, file, public, secrets)


async def test_an_archive_is_verified_with_and_without_the_keys_of_its_records(
    clinic: Clinic, archived: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLINIC_AUDIT_DATABASE_URL")
    verify = ("audit", "archive", "verify", archived.file, "--public-key", archived.public_key)
    opened = await clinic(*verify, "--secrets", archived.secrets)
    assert (opened.status, opened.err) == (0, "")
    assert opened.out == f"{archived.file.name}: 10 records from 0, intact\n"
    closed = await clinic(*verify, "--json")
    assert (closed.status, closed.document[0]["intact"], closed.document[0]["opened"]) == (0, True, False)


async def test_what_was_done_to_an_archive_is_named(clinic: Clinic, archived: Archived) -> None:
    lines = archived.file.read_bytes().split(b"\n")
    archived.file.write_bytes(b"\n".join(lines[:4] + lines[5:]))
    verify = ("audit", "archive", "verify", archived.file, "--public-key", archived.public_key)
    told = await clinic(*verify, "--secrets", archived.secrets)
    assert told.status == 1
    assert "missing" in told.out
    assert "record 3 is missing" in told.out
    archived.file.write_text("{}\n")
    assert (await clinic(*verify)).status == 4


async def test_an_archive_is_listed_restored_and_put_away(clinic: Clinic, archived: Archived) -> None:
    given = ("--public-key", archived.public_key, "--secrets", archived.secrets)
    [listed] = (await clinic("audit", "archive", "list", *given, "--json")).document
    assert (listed["first_index"], listed["records"], listed["jurisdiction"]) == (0, 10, "hipaa")
    restored = await clinic("audit", "archive", "restore", "0", *given)
    assert (restored.status, await archived.restored()) == (0, 10), restored.err
    assert (await clinic("audit", "verify", "--public-key", archived.public_key)).status == 0
    put_away = await clinic("audit", "archive", "put-away", "0", *given)
    assert (put_away.status, await archived.restored()) == (0, 0), put_away.err
    nothing = await clinic("audit", "archive", "restore", "5", *given)
    assert nothing.status == 1
    assert nothing.err == "no archive begins with record 5\n"
