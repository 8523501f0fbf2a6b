"""`clinic audit witness` while the log can't be asked: no outage may look like a log that was rewritten."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from clinic_local.audit_keys import CANNOT_VERIFY
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    key = tmp_path / "public.pem"
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    key.write_bytes(Ed25519PrivateKey.generate().public_key().public_bytes(serialization.Encoding.PEM, form))
    witness = [sys.executable, "-m", "clinic_local.cli", "audit", "witness", str(tmp_path / "witness")]
    return [*witness, "--public-key", str(key)]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    nobody = {"CLINIC_URL": "http://127.0.0.1:1", "CLINIC_LOGIN": "auditor", "CLINIC_PASSWORD": "fictitious"}
    return {**os.environ, **nobody, "CLINIC_ROOT": str(tmp_path)}


def test_asked_once_in_vain_it_says_that_it_could_not_check(
    command: list[str], environment: dict[str, str]
) -> None:
    ended = subprocess.run(
        [*command, "--once"], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == CANNOT_VERIFY, ended.stderr
    assert "can't be reached" in ended.stderr


def test_a_watch_outlives_an_outage(command: list[str], environment: dict[str, str]) -> None:
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as watching:
        try:
            assert watching.stderr is not None
            assert "can't be reached" in watching.stderr.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                watching.wait(timeout=2)
        finally:
            watching.kill()
