"""Real HL7 files that nobody here wrote, posted as they are. None is part of this repository."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from clinic_local.api_client import Caller
from clinic_local.demo_network import Network
from clinic_local.environment import ADMIN_LOGIN, ADMIN_PASSWORD, Secrets
from clinic_local.testing import System
from clinic_shared.testing import eventually

pytestmark = [pytest.mark.servers, pytest.mark.chaos, pytest.mark.timeout(900)]

CORPUS = os.environ.get("CLINIC_CORPUS", "")
FOLDER = Path(CORPUS) / "hl7v2"
COME_AGAIN = {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE}
PATIENCE_SECONDS = 60
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


def insisting(http: httpx.Client, content: bytes) -> httpx.Response:
    """Send the same bytes, as laboratories do, until it isn't refused for now."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        answer = http.post(
            "/v1/lab/messages", content=content, headers={"Content-Type": "application/hl7-v2"}
        )
        if answer.status_code not in COME_AGAIN or time.monotonic() > deadline:
            return answer
        time.sleep(min(float(answer.headers.get("Retry-After", "1")), 2))


@pytest.mark.skipif(not CORPUS, reason="CLINIC_CORPUS names no folder of real messages")
async def test_each_gets_an_answer_and_none_is_lost(
    system: System, network: Network, as_person: Callable[[str], Caller]
) -> None:
    assert files(), f"no HL7 files under {FOLDER}"
    lab = (network.lab_client_id, network.lab_client_secret)
    before = ledger_of(system)["answered"]
    unexpected, acknowledged = [], 0
    with httpx.Client(base_url=system.url, auth=lab, timeout=60, trust_env=False) as http:
        for file in files():
            for name, ending in ENDINGS.items():
                content = with_ending(file.read_bytes(), ending)
                answer = insisting(http, content)
                is_hl7 = answer.status_code == 200 and (
                    not answer.content or answer.content.startswith((b"MSH", b"BHS", b"FHS"))
                )
                refused = answer.status_code in {400, 413, 415, 422}
                acknowledged += is_hl7
                if not is_hl7 and not refused:
                    unexpected.append((file.name, name, answer.status_code))
    assert not unexpected
    await eventually(lambda: ledger_of(system)["balanced"], within_seconds=120)
    answered = ledger_of(system)["answered"] - before
    assert answered >= acknowledged, "an acknowledged message isn't accounted for"
