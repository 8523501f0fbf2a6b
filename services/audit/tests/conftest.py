"""An audit service, and records as producers make them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from clinic_audit import archive_file
from clinic_audit.app import service
from clinic_audit.archive_file import Checked
from clinic_audit.archiving import Archives, Rules
from clinic_audit.recording import IncomingRecord, record_batch
from clinic_audit.signing import Signer, sign_checkpoint
from clinic_audit.verification import Report, verify_log
from clinic_shared.audit import Action, AuditEntry, canonical_record, leaf_hash
from clinic_shared.context import Context
from clinic_shared.ids import uuid7
from clinic_shared.testing import MONDAY, ServiceHarness, service_fixture
from sqlalchemy import text

audit = service_fixture(service)

RecordFactory = Callable[..., IncomingRecord]


def entry_time(pseq: int) -> datetime:
    """When a record was made: one a minute."""
    return MONDAY + timedelta(minutes=pseq)


@pytest.fixture
def record() -> RecordFactory:
    """Return a maker of records as the relay sends them."""

    def make(pseq: int, *, producer: str = "scheduling", **entry: Any) -> IncomingRecord:
        recorded_at = entry.pop("at", None) or entry_time(pseq)
        context = Context(**{"principal": entry.pop("principal")} if "principal" in entry else {})
        values: dict[str, Any] = {
            "action": Action.READ,
            "resource_type": "Patient",
            "patient_id": uuid7(),
        } | entry
        content = canonical_record(
            AuditEntry(**values), producer=producer, recorded_at=recorded_at, context=context
        )
        return IncomingRecord(producer=producer, pseq=pseq, leaf_hash=leaf_hash(content), record=content)

    return make


RULES = Rules(online=timedelta(days=400), kept_years=6, jurisdiction="gdpr")
OLD, YOUNG = 15, 5
"""So many of the records of `Kept` are older than the online period, and so many are not."""
PATIENT = uuid7()
"""Of record 3."""


@dataclass
class Kept:
    """A log of twenty records, of which fifteen are old, and its archives."""

    audit: ServiceHarness
    archives: Archives

    @property
    def file(self) -> Path:
        [found] = self.archives.folder.glob("*.jsonl")
        return found

    async def archive(self, rules: Rules = RULES) -> int:
        return await self.archives.archive_old(rules)

    async def count(self, table: str) -> int:
        async with self.audit.runtime.database.transaction() as tx:
            row = await tx.fetch_one(text(f"SELECT count(*) FROM ONLY {table}"))  # noqa: S608  # a test's own name
        return 0 if row is None else int(row[0])

    async def run(self, *statements: str) -> None:
        """Do what the service's own role may do."""
        async with self.audit.runtime.database.transaction() as tx:
            for statement in statements:
                await tx.execute(text(statement))

    async def verify(self) -> Report:
        async with self.audit.runtime.database.transaction() as tx:
            return await verify_log(tx, self.archives.public_key)

    def check(self, content: bytes | None = None, *, with_keys: bool = True) -> Checked:
        keyring = self.archives.database.keyring if with_keys else None
        stored = self.file.read_bytes() if content is None else content
        return archive_file.check(stored, self.archives.public_key, keyring)

    async def found(self) -> list[int]:
        """Search for the patient's records as the privacy officer does."""
        answer = await self.audit.http.get(
            "/v1/audit/records",
            params={"patient_id": str(PATIENT)},
            headers=self.audit.headers(self.audit.principal("privacy-officer")),
        )
        return [item["leaf_index"] for item in answer.json()["items"]]


@pytest.fixture
async def kept(audit: ServiceHarness, record: RecordFactory, tmp_path: Path) -> Kept:
    await _take(audit, record, 0, 10, days_ago=800)
    await _take(audit, record, 10, OLD, days_ago=500)
    await _take(audit, record, OLD, OLD + YOUNG, days_ago=0)
    return _kept(audit, tmp_path)


@pytest.fixture
async def outlived(audit: ServiceHarness, record: RecordFactory, tmp_path: Path) -> Kept:
    """Return a log whose old records are older than the law of `RULES` keeps them."""
    await _take(audit, record, 0, OLD, days_ago=7 * 366)
    await _take(audit, record, OLD, OLD + YOUNG, days_ago=0)
    return _kept(audit, tmp_path)


async def _take(audit: ServiceHarness, record: RecordFactory, start: int, end: int, *, days_ago: int) -> None:
    audit.clock.advance(
        seconds=(datetime.now(UTC) - timedelta(days=days_ago) - audit.clock.now()).total_seconds()
    )
    async with audit.runtime.database.transaction() as tx:
        batch = [record(n, **({"patient_id": PATIENT} if n == 3 else {})) for n in range(start, end)]
        await record_batch(tx, batch)
        await sign_checkpoint(tx, audit.runtime.get(Signer))


def _kept(audit: ServiceHarness, tmp_path: Path) -> Kept:
    key = audit.runtime.get(Signer).public_key
    return Kept(
        audit, Archives(database=audit.runtime.database, public_key=key, folder=tmp_path / "archives")
    )
