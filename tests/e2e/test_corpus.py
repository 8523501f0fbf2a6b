"""Real HL7 files that nobody here wrote, posted as they are. None is part of this repository."""

import os
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from clinic_local.api_client import Caller
from clinic_local.demo_network import Network
from clinic_local.environment import ADMIN_LOGIN, ADMIN_PASSWORD, Secrets
from clinic_local.testing import System

pytestmark = [pytest.mark.servers, pytest.mark.chaos, pytest.mark.timeout(300)]

CORPUS = os.environ.get("CLINIC_CORPUS", "")
FOLDER = Path(CORPUS) / "hl7v2"
ENDINGS = {"as it is": None, "CR": b"\r", "CRLF": b"\r\n"}


def files() -> list[Path]:
    return sorted(p for p in FOLDER.rglob("*") if p.suffix in {".hl7", ".txt"}) if CORPUS else []


def with_ending(content: bytes, ending: bytes | None) -> bytes:
    if ending is None:
        return content
    return content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", ending)


def ledger_of(system: System) -> dict[str, int]:
    with Caller(system.url, ADMIN_LOGIN, Secrets(system.root).get(ADMIN_PASSWORD)) as admin:
        interfaces = admin.get("/v1/ops/ledger")["interfaces"]
    return next(line for line in interfaces if line["interface"] == "hl7")


@pytest.mark.skipif(not CORPUS, reason="CLINIC_CORPUS names no folder of real messages")
def test_each_gets_an_answer_and_none_is_lost(
    system: System, network: Network, as_person: Callable[[str], Caller]
) -> None:
    assert files(), f"no HL7 files under {FOLDER}"
    lab = (network.lab_client_id, network.lab_client_secret)
    before = ledger_of(system)["answered"]
    unexpected, acknowledged = [], 0
    with httpx.Client(base_url=system.url, auth=lab, timeout=30, trust_env=False) as http:
        for file in files():
            for name, ending in ENDINGS.items():
                content = with_ending(file.read_bytes(), ending)
                answer = http.post(
                    "/v1/lab/messages", content=content, headers={"Content-Type": "application/hl7-v2"}
                )
                is_hl7 = answer.status_code == 200 and (
                    not answer.content or answer.content.startswith((b"MSH", b"BHS", b"FHS"))
                )
                refused = answer.status_code in {400, 413, 415, 422}
                acknowledged += is_hl7
                if not is_hl7 and not refused:
                    unexpected.append((file.name, name, answer.status_code))
    assert not unexpected
    line = ledger_of(system)
    assert line["balanced"]
    assert line["answered"] - before >= acknowledged, "an acknowledged message isn't accounted for"
