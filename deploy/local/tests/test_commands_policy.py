"""`clinic policy try`: what a proposed policy would change, from the log in its database."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from clinic_audit.app import service
from clinic_audit.recording import IncomingRecord, record_batch
from clinic_shared.audit import Action, AuditEntry, canonical_record, leaf_hash
from clinic_shared.context import Context
from clinic_shared.contracts import CONTRACTS_DIR
from clinic_shared.ids import uuid7
from clinic_shared.policy import POLICY_FILE
from clinic_shared.principal import Principal
from clinic_shared.testing import ServiceHarness, service_fixture

from .conftest import Clinic

audit = service_fixture(service)

CURRENT = (CONTRACTS_DIR / POLICY_FILE).read_text(encoding="utf-8")
READ_CHARTS = "chart.read: {action: read, reach: {patient: [own], doctor: [relationship]}}"


def read_of_a_chart(pseq: int) -> IncomingRecord:
    doctor = Principal(subject=uuid7(), kind="staff", roles=frozenset({"doctor"}))
    details = {"permission": "chart.read", "decision": "relationship", "holds": "relationship network"}
    entry = AuditEntry(action=Action.READ, resource_type="List", patient_id=uuid7(), details=details)
    content = canonical_record(
        entry, producer="patients", recorded_at=datetime.now(UTC), context=Context(principal=doctor)
    )
    return IncomingRecord(producer="patients", pseq=pseq, leaf_hash=leaf_hash(content), record=content)


@pytest.fixture
async def log(audit: ServiceHarness, clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    async with audit.runtime.database.transaction() as tx:
        await record_batch(tx, [read_of_a_chart(number) for number in range(3)])
    monkeypatch.setenv("CLINIC_AUDIT_DATABASE_URL", audit.runtime.settings.database_url.get_secret_value())


def proposal(folder: Path, text: str) -> str:
    file = folder / "proposed.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


async def test_a_proposal_lists_what_it_would_newly_deny(log: Any, clinic: Clinic, tmp_path: Path) -> None:
    assert READ_CHARTS in CURRENT
    stricter = CURRENT.replace(READ_CHARTS, READ_CHARTS.replace("[relationship]", "[own]"))
    tried = await clinic("policy", "try", proposal(tmp_path, stricter), "--json")
    assert tried.status == 1, tried.err
    told = tried.document
    [change] = told["changes"]
    assert (change["permission"], change["roles"], change["would_be"]) == ("chart.read", ["doctor"], "denied")
    assert (change["records"], change["patients"], told["judged"]) == (3, 3, 3)


async def test_the_policy_in_force_would_change_nothing(log: Any, clinic: Clinic, tmp_path: Path) -> None:
    tried = await clinic("policy", "try", proposal(tmp_path, CURRENT))
    assert tried.status == 0, tried.err
    assert "Nothing would change." in tried.out


async def test_what_is_no_policy_is_refused_with_the_place(log: Any, clinic: Clinic, tmp_path: Path) -> None:
    tried = await clinic("policy", "try", proposal(tmp_path, CURRENT.replace("[own]", "[everything]")))
    assert tried.status == 2
    assert "reach" in tried.err
