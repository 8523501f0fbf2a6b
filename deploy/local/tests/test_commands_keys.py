"""`clinic keys`: a key is replaced step by step, and whatever was stored before opens at each of them."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from clinic_audit.app import service
from clinic_audit.recording import IncomingRecord, record_batch
from clinic_local import commands_keys
from clinic_local.fakes.in_process import serving
from clinic_local.fakes.key_services import TransitEngine
from clinic_patients import erasing, store
from clinic_patients.app import service as patients_service
from clinic_patients.domain import Identifier, Patient, PatientId, PatientStatus, PersonName, Sex
from clinic_shared import held
from clinic_shared.audit import Action, AuditEntry, canonical_record, leaf_hash
from clinic_shared.context import Context
from clinic_shared.encryption.key_store import (
    FILE,
    in_use,
    index_key_in_clear,
    keys_in_clear,
    new_file,
    read_file,
)
from clinic_shared.held import RawMessage
from clinic_shared.ids import uuid7
from clinic_shared.testing import MONDAY, ServiceHarness, service_fixture
from sqlalchemy import select
from starlette.applications import Starlette

from .conftest import Clinic

audit = service_fixture(service)


class Kept:
    """A service with its file of keys, and the messages that it keeps."""

    def __init__(self, audit: ServiceHarness, folder: Path) -> None:
        self._database = audit.runtime.database
        self.folder = folder
        self.file = folder / "audit" / FILE
        self.file.parent.mkdir()
        self.file.write_text(new_file())
        self.reload()

    def reload(self) -> None:
        """What processes do by themselves when the file changes."""
        self._database.keyring.take(keys_in_clear(self.file))

    async def keep(self) -> None:
        message = RawMessage(queue="q", headers={}, body=b"said", message_id=str(uuid7()))
        async with self._database.transaction() as tx:
            await held.park(tx, message, cause="test", error="test")

    async def said(self) -> list[bytes]:
        async with self._database.transaction() as tx:
            rows = await tx.fetch_all(select(held.held_table).order_by(held.held_table.c.id))
            return [held.body_of(tx, row) for row in rows]


@pytest.fixture
def kept(audit: ServiceHarness, clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    url = audit.runtime.settings.database_url.get_secret_value()
    monkeypatch.setenv("CLINIC_AUDIT_DATABASE_URL", url)
    folder = tmp_path / "secrets"
    folder.mkdir()
    return Kept(audit, folder)


async def test_a_key_is_announced_used_and_withdrawn_and_everything_opens_meanwhile(
    clinic: Clinic, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def keys(command: str, *more: str) -> str:
        ended = await clinic("keys", command, "audit", "--secrets", kept.folder, *more)
        assert ended.status == 0, ended.err
        kept.reload()
        assert set(await kept.said()) <= {b"said"}
        return str(ended.out)

    async def states() -> dict[str, int]:
        lines: list[dict[str, Any]] = json.loads(await keys("status", "--json"))
        return {line["state"]: line["rows"] for line in lines}

    await kept.keep()
    first = in_use(read_file(kept.file))
    assert await states() == {"in use": 1, "in clear": 0}
    assert "announced" in await keys("rotate")
    assert in_use(read_file(kept.file)) == first
    await kept.keep()
    assert await states() == {"announced": 0, "in use": 2, "in clear": 0}
    assert "it can be used from" in await keys("rotate")
    assert in_use(read_file(kept.file)) == first
    monkeypatch.setattr(commands_keys, "SPREAD", timedelta(0))
    assert "is used from now on" in await keys("rotate")
    await kept.keep()
    assert await states() == {"old": 2, "in use": 1, "in clear": 0}
    assert "0 keys" in await keys("retire")
    assert "2 rows" in await keys("rewrap")
    assert await states() == {"old": 0, "in use": 3, "in clear": 0}
    assert "0 keys" in await keys("retire")
    monkeypatch.setattr(commands_keys, "FORGOTTEN", timedelta(0))
    assert "1 key " in await keys("retire")
    assert await states() == {"in use": 3, "in clear": 0}
    assert await kept.said() == [b"said"] * 3


async def test_keys_move_into_a_vault_and_everything_that_needs_them_asks_there(
    clinic: Clinic, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TransitEngine(key="polyclinic", token="token")

    async def keys(command: str, *more: str) -> str:
        ended = await clinic("keys", command, *more, "audit", "--secrets", kept.folder)
        assert ended.status == 0, ended.err
        return str(ended.out)

    await kept.keep()
    before = kept.file.read_text()
    unknown = await clinic("keys", "wrap", "vault", "audit", "--secrets", kept.folder)
    assert (unknown.status != 0, "CLINIC_KEY_SERVICE_URL" in unknown.err) == (True, True)
    assert kept.file.read_text() == before
    async with serving(Starlette(routes=engine.routes())) as url:
        monkeypatch.setenv("CLINIC_KEY_SERVICE_URL", url)
        monkeypatch.setenv("CLINIC_KEY_SERVICE_KEY", "polyclinic")
        monkeypatch.setenv("CLINIC_KEY_SERVICE_SECRET", "token")
        assert "wrapped by vault" in await keys("wrap", "vault")
        assert "already with vault" in await keys("wrap", "vault")
        stored = read_file(kept.file)
        assert (stored.provider, in_use(stored).wrapped.startswith("vault:")) == ("vault", True)
        monkeypatch.setattr(commands_keys, "SPREAD", timedelta(0))
        monkeypatch.setattr(commands_keys, "FORGOTTEN", timedelta(0))
        await keys("rotate")
        assert "is used from now on" in await keys("rotate")
        assert "is still needed by held (1 row)" in await keys("retire")
        assert "1 row " in await keys("rewrap")
        assert "1 key " in await keys("retire")
        engine.sealed = True
        sealed = await clinic("keys", "status", "audit", "--secrets", kept.folder)
        assert (sealed.status != 0, "status 503" in sealed.err) == (True, True)
        engine.sealed = False
        assert "wrapped by file" in await keys("wrap", "file")
    kept.reload()
    assert await kept.said() == [b"said"]


async def test_a_service_without_keys_is_told_how_to_get_some(clinic: Clinic, kept: Kept) -> None:
    ended = await clinic("keys", "rotate", "billing", "--secrets", kept.folder)
    assert ended.status != 0
    assert "clinic secrets init" in ended.err
    unknown = await clinic("keys", "status", "nobody", "--secrets", kept.folder)
    assert unknown.status != 0
    assert "there is no service nobody" in unknown.err


patients = service_fixture(patients_service)


async def test_after_a_restore_what_was_erased_since_is_erased_again(
    clinic: Clinic,
    audit: ServiceHarness,
    patients: ServiceHarness,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The backup is of before the erasure: the patient is as they were, and only the audit log knows better."""
    for name, harness in (("AUDIT", audit), ("PATIENTS", patients)):
        url = harness.runtime.settings.database_url.get_secret_value()
        monkeypatch.setenv(f"CLINIC_{name}_DATABASE_URL", url)
    file = tmp_path / "secrets" / "patients" / FILE
    file.parent.mkdir(parents=True)
    file.write_text(new_file())
    patients.runtime.database.keyring.take(keys_in_clear(file), index_key=index_key_in_clear(file))
    restored = patient()
    async with patients.runtime.database.transaction() as tx:
        await store.add_patient(tx, restored)
    entry = AuditEntry(
        action=Action.DELETE,
        resource_type=erasing.RECORD,
        resource_id=uuid7(),
        patient_id=restored.patient_id,
        reason="asked for in writing",
        details={"class": "contact"},
    )
    record = canonical_record(entry, producer="patients", recorded_at=MONDAY, context=Context())
    async with audit.runtime.database.transaction() as tx:
        incoming = IncomingRecord(producer="patients", pseq=0, leaf_hash=leaf_hash(record), record=record)
        await record_batch(tx, [incoming])
    for again in ("1 had to be done again", "0 had to be done again"):
        ended = await clinic("keys", "replay-erasures", "--secrets", tmp_path / "secrets")
        assert ended.status == 0, ended.err
        assert f"1 erasure in the audit log; {again}" in ended.out
    async with patients.runtime.database.transaction() as tx:
        left = await store.find_patient(tx, restored.patient_id)
    assert left is not None
    assert (left.phones, left.emails, left.identifiers) == ((), (), restored.identifiers)


def patient() -> Patient:
    return Patient(
        patient_id=PatientId(uuid7()),
        version=1,
        status=PatientStatus.ACTIVE,
        centre_id=None,
        name=PersonName(family="Тестова"),
        birth_on=None,
        sex=Sex.UNKNOWN,
        phones=("+70000000001",),
        emails=("testova@example.org",),
        language=None,
        identifiers=(Identifier(authority="TEST", type=None, value="T-1"),),
        registered_at=MONDAY,
        updated_at=MONDAY,
    )
