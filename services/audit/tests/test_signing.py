"""The key that signs checkpoints: one for all processes, whole or not there, never made in production."""

import asyncio
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from clinic_audit import local_witness, signing
from clinic_audit.local_witness import witness_checkpoints
from clinic_audit.settings import AuditSettings
from clinic_audit.signing import SigningKeyMissingError, load_signer, sign_checkpoints
from clinic_shared.health import Health
from clinic_shared.service import Worker
from clinic_shared.testing import ServiceHarness, eventually
from pydantic import SecretStr


def settings(key: Path) -> AuditSettings:
    return AuditSettings(
        environment="test",
        database_url=SecretStr("postgresql://nobody@127.0.0.1:1/nothing"),
        amqp_url=SecretStr("amqp://nobody@127.0.0.1:1/"),
        audit_signing_key_file=key,
    )


def test_processes_that_start_together_sign_with_one_key(tmp_path: Path) -> None:
    for attempt in range(20):
        key = tmp_path / f"{attempt}" / "key.pem"
        with ThreadPoolExecutor(4) as pool:
            signers = list(pool.map(load_signer, [settings(key)] * 4))
        assert len({signer.key_id for signer in signers}) == 1
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert list(key.parent.iterdir()) == [key]


def test_the_key_outlives_the_process(tmp_path: Path) -> None:
    key = settings(tmp_path / "key.pem")
    assert load_signer(key).key_id == load_signer(key).key_id


def test_production_makes_no_key(tmp_path: Path) -> None:
    with pytest.raises(SigningKeyMissingError):
        load_signer(settings(tmp_path / "key.pem").model_copy(update={"environment": "production"}))


@pytest.mark.servers
@pytest.mark.parametrize(
    ("name", "loop"),
    [(signing.NAME, sign_checkpoints), (local_witness.NAME, witness_checkpoints)],
)
async def test_a_failure_that_is_over_keeps_nobody_from_being_ready(
    audit: ServiceHarness, tmp_path: Path, name: str, loop: Worker
) -> None:
    witnessed = audit.runtime.settings.model_copy(update={"audit_witness_file": tmp_path / "witness"})
    runtime = replace(audit.runtime, settings=witnessed)
    stop, health = asyncio.Event(), Health.of(runtime)
    health.report(name, "failed with TimeoutError")
    working = asyncio.create_task(loop(runtime, stop))
    await eventually(lambda: name not in health.reasons, within_seconds=60)
    stop.set()
    await working
