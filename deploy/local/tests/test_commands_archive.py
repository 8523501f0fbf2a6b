"""`clinic audit archive`: an archive is checked by itself, and what somebody did to it is named."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from clinic_audit.app import service
from clinic_audit.archiving import Archives, Rules
from clinic_audit.recording import IncomingRecord, record_batch
from clinic_audit.signing import Signer, sign_checkpoint
from clinic_local import commands_keys
from clinic_local.fakes.in_process import serving
from clinic_local.fakes.key_services import TransitEngine
from clinic_shared.audit import Action, AuditEntry, canonical_record, leaf_hash
from clinic_shared.context import Context
from clinic_shared.encryption.key_store import FILE, keys_in_clear, new_file
from clinic_shared.ids import uuid7
from clinic_shared.testing import MONDAY, ServiceHarness, service_fixture
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import text
from starlette.applications import Starlette

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
    folder: Path
    public_key: Path
    secrets: Path

    @property
    def file(self) -> Path:
        [file] = self.folder.iterdir()
        return file

    @property
    def keys(self) -> tuple[object, ...]:
        return "--public-key", self.public_key, "--secrets", self.secrets

    async def restored(self) -> int:
        async with self.audit.runtime.database.transaction() as tx:
            row = await tx.fetch_one(text("SELECT count(*) FROM audit_record"))
        return 0 if row is None else int(row[0])


@pytest.fixture
async def old_log(
    audit: ServiceHarness, clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Archived:
    """Return a log of ten records of which nothing is archived yet."""
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
    monkeypatch.setenv("CLINIC_AUDIT_DATABASE_URL", audit.runtime.settings.database_url.get_secret_value())
    monkeypatch.setenv("CLINIC_AUDIT_ARCHIVE_DIR", str(folder))
    return Archived(audit, folder, public, secrets)


@pytest.fixture
async def archived(old_log: Archived) -> Archived:
    runtime = old_log.audit.runtime
    archives = Archives(
        database=runtime.database, public_key=runtime.get(Signer).public_key, folder=old_log.folder
    )
    rules = Rules(online=timedelta(days=400), kept_years=6, jurisdiction="hipaa")
    assert await archives.archive_old(rules) == 1
    return old_log


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


async def test_old_months_are_archived_at_once_and_sealed(
    clinic: Clinic, old_log: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLINIC_JURISDICTION", "152-fz")
    archived = await clinic("audit", "archive", "now", *old_log.keys)
    assert (archived.status, "1 archive made" in archived.out) == (0, True), archived.err
    [listed] = (await clinic("audit", "archive", "list", *old_log.keys, "--json")).document
    assert (listed["records"], listed["jurisdiction"], listed["in_log"]) == (10, "152-fz", False)
    [checked] = (await clinic("audit", "archive", "verify", old_log.file, *old_log.keys, "--json")).document
    assert (checked["intact"], checked["opened"]) == (True, True)
    assert await old_log.restored() == 0
    assert b"Patient" not in old_log.file.read_bytes()
    again = await clinic("audit", "archive", "now", *old_log.keys)
    assert (again.status, again.out[:17]) == (0, "Nothing archived:")


async def test_nothing_is_archived_without_keys_a_folder_or_by_rules_below_the_law(
    clinic: Clinic, old_log: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyless = await clinic("audit", "archive", "now", "--public-key", old_log.public_key)
    assert (keyless.status, "the keys that seal archives aren't here" in keyless.err) == (4, True)
    monkeypatch.setenv("CLINIC_AUDIT_KEPT_YEARS", "5")
    unlawful = await clinic("audit", "archive", "now", *old_log.keys)
    assert (unlawful.status, "the floor of gdpr" in unlawful.err) == (4, True), unlawful.err
    monkeypatch.delenv("CLINIC_AUDIT_KEPT_YEARS")
    monkeypatch.delenv("CLINIC_AUDIT_ARCHIVE_DIR")
    nowhere = await clinic("audit", "archive", "now", *old_log.keys)
    assert (nowhere.status, "where archives are kept isn't known" in nowhere.err) == (4, True)
    assert not old_log.folder.exists()


async def test_in_a_container_of_audit_its_own_settings_are_enough(
    clinic: Clinic, old_log: Archived, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / FILE).write_bytes((old_log.secrets / "audit" / FILE).read_bytes())
    (own / "clinic_database_url").write_text(
        old_log.audit.runtime.settings.database_url.get_secret_value(), encoding="utf-8"
    )
    monkeypatch.delenv("CLINIC_AUDIT_DATABASE_URL")
    monkeypatch.setenv("CLINIC_SECRETS_DIR", str(own))
    archived = await clinic("audit", "archive", "now", "--public-key", old_log.public_key)
    assert archived.status == 0, archived.err
    [checked] = (
        await clinic(
            *("audit", "archive", "verify", old_log.file, "--json", "--public-key", old_log.public_key)
        )
    ).document
    assert (checked["intact"], checked["opened"]) == (True, True)


async def test_archives_are_made_and_opened_with_keys_that_a_vault_guards(
    clinic: Clinic, old_log: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TransitEngine(key="polyclinic", token="token")
    async with serving(Starlette(routes=engine.routes())) as url:
        monkeypatch.setenv("CLINIC_KEY_SERVICE_URL", url)
        monkeypatch.setenv("CLINIC_KEY_SERVICE_KEY", "polyclinic")
        monkeypatch.setenv("CLINIC_KEY_SERVICE_SECRET", "token")
        wrapped = await clinic("keys", "wrap", "vault", "audit", "--secrets", old_log.secrets)
        assert wrapped.status == 0, wrapped.err
        archived = await clinic("audit", "archive", "now", *old_log.keys)
        assert (archived.status, "1 archive made" in archived.out) == (0, True), archived.err
        [checked] = (
            await clinic("audit", "archive", "verify", old_log.file, *old_log.keys, "--json")
        ).document
        assert (checked["intact"], checked["opened"]) == (True, True)
        restored = await clinic("audit", "archive", "restore", "0", *old_log.keys)
        assert (restored.status, await old_log.restored()) == (0, 10), restored.err


async def test_an_archive_whose_time_is_not_over_is_not_destroyed(clinic: Clinic, archived: Archived) -> None:
    refused = await clinic("audit", "archive", "destroy", "0", "--reason", "too many", *archived.keys)
    assert (refused.status, "is kept until" in refused.err) == (1, True)
    assert archived.file.exists()


async def test_an_archive_stays_readable_when_the_key_that_sealed_it_is_replaced_and_withdrawn(
    clinic: Clinic, archived: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def keys(command: str) -> str:
        ended = await clinic("keys", command, "audit", "--secrets", archived.secrets)
        assert ended.status == 0, ended.err
        return str(ended.out)

    monkeypatch.setattr(commands_keys, "SPREAD", timedelta(0))
    monkeypatch.setattr(commands_keys, "FORGOTTEN", timedelta(0))
    await keys("rotate")
    assert "is used from now on" in await keys("rotate")
    assert "0 keys" in await keys("retire"), "an archive still needs the old one"
    assert "1 row" in await keys("rewrap")
    assert "1 key " in await keys("retire")
    verify = ("audit", "archive", "verify", archived.file, *archived.keys)
    closed = await clinic(*verify)
    assert (closed.status, "--keys-from-log" in closed.err) == (4, True)
    opened = await clinic(*verify, "--keys-from-log")
    assert (opened.status, opened.out) == (0, f"{archived.file.name}: 10 records from 0, intact\n")
    proven = await clinic("audit", "archive", "verify", archived.file, "--public-key", archived.public_key)
    assert (proven.status, "intact" in proven.out) == (0, True), "its proof needs no key at all"
    restored = await clinic("audit", "archive", "restore", "0", *archived.keys)
    assert (restored.status, await archived.restored()) == (0, 10), restored.err
