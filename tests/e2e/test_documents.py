"""Every shell block that the documents show is run as it stands."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from clinic_local.demo_network import Network
from clinic_local.paths import CHECKOUT
from clinic_local.testing import System

pytestmark = [pytest.mark.servers, pytest.mark.chaos, pytest.mark.timeout(900)]

PATIENT_CURL = "retry = 8\nretry-max-time = 60\nretry-all-errors\n"
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def documents() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    found = [CHECKOUT / name for name in listed.stdout.splitlines()]
    return [path for path in found if any("curl" in block for block in BLOCK.findall(path.read_text()))]


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_its_curl_blocks_run_one_after_the_other(
    document: Path, system: System, network: Network, tmp_path: Path
) -> None:
    # For the gateway waits two seconds for an event that is under way, and a busy machine may need more.
    tmp_path.joinpath(".curlrc").write_text(PATIENT_CURL)
    blocks = [block for block in BLOCK.findall(document.read_text()) if not block.startswith("git clone")]
    environment = {
        "PATH": os.environ["PATH"],
        "CURL_HOME": str(tmp_path),
        "CLINIC_URL": system.url,
        "LOGIN": network.login_of("registrar"),
        "PASSWORD": network.password,
    }
    script = "set -euo pipefail\n" + "\n".join(blocks)
    run = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
