"""`make security`: every test of the table, then tools over code, dependencies and history; what passed and failed.

A tool whose data can't be reached has not run: that is said and counted by itself, never as passed.
"""

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent
RESULTS = ROOT / ".run" / "security"
BASELINE = ".secrets.baseline"
SOURCES = ("shared/clinic_shared", "gateway/clinic_gateway", "deploy/local/clinic_local")
# A whole system each, or a table of their own.
SERIAL = ("tests/e2e/",)


@dataclass(frozen=True)
class Tally:
    """`not_run` says why, where something couldn't be asked."""

    name: str
    passed: int = 0
    failed: int = 0
    not_run: str | None = None

    def __str__(self) -> str:
        if self.not_run is not None:
            return f"- {self.name}: not run: {self.not_run}"
        return f"{'✗' if self.failed else '✓'} {self.name}: {self.passed} passed, {self.failed} failed"


def run(*command: str | Path, feed: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), cwd=ROOT, input=feed, capture_output=True, text=True, check=False
    )


def named_tests() -> list[str]:
    """Return the files that the table names."""
    table = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    return sorted({"tests/hostile", *re.findall(r"`([\w.-]+/[\w/.-]+\.py)(?:::\w+)?`", table)})


def tests(name: str, files: Sequence[str], *options: str) -> Tally:
    """Run tests where they can be watched, and count them."""
    told = RESULTS / f"{name.replace(' ', '-')}.xml"
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={told}", *options, *files]
    ended = subprocess.run(command, cwd=ROOT, check=False)
    if not told.exists():
        return Tally(name, failed=max(1, ended.returncode))
    suites = ET.parse(told).getroot().iter("testsuite")  # noqa: S314  # pytest wrote it
    counts = [{key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors")} for suite in suites]
    failed = sum(one["failures"] + one["errors"] for one in counts)
    return Tally(name, passed=sum(one["tests"] for one in counts) - failed, failed=failed)


def bandit() -> Tally:
    """What ruff's rules of the same name let pass with a reason is low or medium here."""
    services = [str(folder) for folder in ROOT.glob("services/*/clinic_*")]
    done = run(TOOLS / "bandit", "-q", "-r", "-f", "json", "--severity-level", "high", *SOURCES, *services)
    found = json.loads(done.stdout)
    for one in found["results"]:
        print(f"{one['filename']}:{one['line_number']}: {one['test_id']} {one['issue_text']}")
    files = len(found["metrics"]) - 1
    bad = {one["filename"] for one in found["results"]}
    return Tally("bandit", passed=files - len(bad), failed=len(bad))


def pip_audit() -> Tally:
    """Strict: a package that can't be looked up is no package without vulnerabilities."""
    requirements = RESULTS / "requirements.txt"
    made = run(
        uv(),
        "export",
        "-q",
        "--frozen",
        "--all-packages",
        "--no-emit-workspace",
        "--no-dev",
        "-o",
        requirements,
    )
    if made.returncode:
        return Tally("pip-audit", not_run="the lock file can't be exported")
    options = ("--strict", "--require-hashes", "--disable-pip", "--progress-spinner=off", "-f", "json")
    done = run(TOOLS / "pip-audit", *options, "-r", requirements)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return Tally("pip-audit", not_run=(done.stderr.strip().splitlines() or ["no answer"])[-1])
    bad = [one for one in packages if one.get("vulns")]
    for one in bad:
        print(f"{one['name']} {one['version']}: {', '.join(each['id'] for each in one['vulns'])}")
    return Tally("pip-audit", passed=len(packages) - len(bad), failed=len(bad))


def uv() -> Path:
    return max(Path.home().glob(".cache/polyclinic/uv-*/uv"))


def secrets() -> Tally:
    """What looks like a secret and isn't stands in the baseline, each by its digest."""
    files = [name for name in run("git", "ls-files", "-z").stdout.split("\0") if name and name != BASELINE]
    # A copy, since the tool writes the lines down that have moved.
    known = shutil.copy(ROOT / BASELINE, RESULTS)
    done = run(TOOLS / "detect-secrets-hook", "--no-verify", "--baseline", known, *files)
    print(done.stdout, end="")
    bad = set(re.findall(r"^Location:\s+(.+):\d+$", done.stdout, re.MULTILINE))
    failed = len(bad) or int(done.returncode not in {0, 3})
    return Tally("secret scan", passed=len(files) - failed, failed=failed)


def sbom() -> Tally:
    """Write what is installed in CycloneDX, and read it back."""
    written = RESULTS / "sbom.cdx.json"
    done = run(TOOLS / "cyclonedx-py", "environment", "--of", "JSON", "-o", written, sys.executable)
    if done.returncode:
        print(done.stderr)
        return Tally("CycloneDX SBOM", failed=1)
    components = json.loads(written.read_text(encoding="utf-8"))["components"]
    print(f"{len(components)} components in {written.relative_to(ROOT)}")
    return Tally("CycloneDX SBOM", passed=1)


def checks() -> list[Callable[[], Tally]]:
    serial = [name for name in named_tests() if name.startswith(SERIAL)]
    parallel = [name for name in named_tests() if not name.startswith(SERIAL)]
    return [
        lambda: tests("hostile tests", parallel, "-n", "2", "--dist", "loadfile"),
        lambda: tests("on a whole system", serial),
        bandit,
        pip_audit,
        secrets,
        sbom,
    ]


def main() -> int:
    RESULTS.mkdir(parents=True, exist_ok=True)
    tallies = [check() for check in checks()]
    print("", *tallies, sep="\n")
    passed, failed = (sum(getattr(one, what) for one in tallies) for what in ("passed", "failed"))
    not_run = sum(one.not_run is not None for one in tallies)
    print(f"{passed} passed, {failed} failed" + (f", {not_run} not run" if not_run else ""))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
