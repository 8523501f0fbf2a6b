"""Runs the scenarios and prints what became of each. `FRESH_TEST`, `FRESH_RELEASES`, `FRESH_ONLY`: CONTRIBUTING.md."""

import os
import shutil
import sys
import time
from pathlib import Path

from clinic_local.errors import SetupError

from fresh.host import Network
from fresh.machines import base, new_machine
from fresh.scenarios import TESTS, Scenario, scenarios

_RELEASES = {"bookworm": "Debian 12", "trixie": "Debian 13"}


class Fresh:
    """One run, with its folder of roots and logs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._logs = folder / "log"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._network = Network.of_this_machine()

    def passes(self, suite: str, scenario: Scenario) -> bool:
        log = self._logs / f"{suite}-{scenario.name}.log"
        log.write_bytes(b"")
        print(f"{_RELEASES.get(suite, suite)} {scenario.what} ...", flush=True)
        started = time.monotonic()
        root = base(suite, self._folder, self._network, self._logs / f"{suite}-debootstrap.log")
        machine = new_machine(root, self._folder / f"{suite}-{scenario.name}", self._network)
        passed = scenario.run(machine, log)
        if os.environ.get("FRESH_KEEP") != "yes":
            shutil.rmtree(machine.root)
        print(f"  {'ok' if passed else 'FAILED'}  {time.monotonic() - started:.0f} s  {log}", flush=True)
        return passed


def main() -> int:
    if os.getuid() != 0:
        raise SetupError(
            "test-fresh",
            "it makes roots of other systems and changes into them, which only root can",
            "Run it as root: sudo make test-fresh. The rest of the tests needs no root: make test",
        )
    tests = os.environ.get("FRESH_TEST") or "full"
    if tests not in TESTS:
        raise SetupError("test-fresh", f"FRESH_TEST is {tests}", f"Choose one of: {' '.join(TESTS)}")
    folder = Path(os.environ.get("FRESH_DIR") or "/var/lib/polyclinic/fresh")
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = Fresh(folder)
    suites = (os.environ.get("FRESH_RELEASES") or " ".join(_RELEASES)).split()
    only = (os.environ.get("FRESH_ONLY") or "").split()
    chosen = [scenario for scenario in scenarios(tests) if not only or scenario.name in only]
    results = [fresh.passes(suite, scenario) for suite in suites for scenario in chosen]
    print(f"{results.count(True)} passed, {results.count(False)} failed")
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SetupError as error:
        print(error.report(), file=sys.stderr)
        sys.exit(1)
