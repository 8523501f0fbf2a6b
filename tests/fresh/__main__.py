"""Runs the scenarios and prints what became of each. `FRESH_RELEASES`, `FRESH_TEST` and others: CONTRIBUTING.md."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clinic_local.errors import SetupError

from fresh import image
from fresh.host import Network
from fresh.machines import ORDINARY, ROOT, Machine, User, base, new_machine

_RELEASES = {"bookworm": "Debian 12", "trixie": "Debian 13"}
_TESTS = {"full": "make test", "quick": "make check", "none": "true"}
# One request through the gateway to every service, as the README shows it, without curl.
_REQUEST = (
    "import os, urllib.request as r; print(r.urlopen(os.environ['CLINIC_URL'] + '/readyz').read().decode())"
)
_UP_AND_DOWN = f"""
cd ~/polyclinic
touch /tmp/began
make up
. .run/env
python3 -c "{_REQUEST}"
make status
make down
left=$(grep -hvE '^[0-9]+ \\(.*\\) Z' /proc/[0-9]*/stat 2>/dev/null | grep -E 'python|postgres|beam|epmd|clinic' || true)
if [ -n "$left" ]; then echo "still running: $left"; exit 1; fi
strays=$(find / -xdev -newer /tmp/began -type f -not -path "$HOME/polyclinic/*" -not -path "$HOME/.cache/*" \
    -not -path "$HOME/.local/state/*" -not -path "/var/lib/polyclinic/*" -not -path "/tmp/*" 2>/dev/null || true)
if [ -n "$strays" ]; then echo "written outside of the clone and its caches: $strays"; exit 1; fi
"""


@dataclass(frozen=True)
class Outcome:
    what: str
    passed: bool
    seconds: float
    log: Path


class Fresh:
    """One run of all scenarios, with its folder of roots and logs."""

    def __init__(self, folder: Path, tests: str) -> None:
        self._folder = folder
        self._logs = folder / "log"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._network = Network.of_this_machine()
        self._tests = tests

    def scenarios(self, suite: str) -> Iterator[Outcome]:
        name = _RELEASES.get(suite, suite)
        for user in (ROOT, ORDINARY):
            who = "as root" if user is ROOT else "as an ordinary user"
            yield self._outcome(
                f"{name} {who}: make up, a request, make down", suite, user.name, self._up(user)
            )
        yield self._outcome(
            f"{name}: the image, and one service from it", suite, "image", image.build_and_start
        )

    def _up(self, user: User) -> Callable[[Machine, Path], bool]:
        def run(machine: Machine, log: Path) -> bool:
            machine.add(user)
            machine.copy_clone(user)
            if machine.run(user, _UP_AND_DOWN, log=log) != 0:
                return False
            return machine.run(user, f"cd ~/polyclinic; {_TESTS[self._tests]}", log=log) == 0

        return run

    def _outcome(self, what: str, suite: str, name: str, run: Callable[[Machine, Path], bool]) -> Outcome:
        log = self._logs / f"{suite}-{name}.log"
        log.write_bytes(b"")
        print(f"  {what} ...", flush=True)
        started = time.monotonic()
        root = base(suite, self._folder, self._network, self._logs / f"{suite}-debootstrap.log")
        machine = new_machine(root, self._folder / f"{suite}-{name}", self._network)
        passed = run(machine, log)
        if passed and os.environ.get("FRESH_KEEP") != "yes":
            shutil.rmtree(machine.root)
        outcome = Outcome(what, passed, time.monotonic() - started, log)
        print(f"  {'ok' if passed else 'FAILED'}  {outcome.seconds:.0f} s  {log}", flush=True)
        return outcome


def main() -> int:
    if os.getuid() != 0:
        raise SetupError(
            "test-fresh",
            "it makes roots of other systems and changes into them, which only root can",
            "Run it as root: sudo make test-fresh. The rest of the tests needs no root: make test",
        )
    folder = Path(os.environ.get("FRESH_DIR") or "/var/lib/polyclinic/fresh")
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    tests = os.environ.get("FRESH_TEST") or "full"
    if tests not in _TESTS:
        raise SetupError("test-fresh", f"FRESH_TEST is {tests}", f"Choose one of: {' '.join(_TESTS)}")
    fresh = Fresh(folder, tests)
    suites = (os.environ.get("FRESH_RELEASES") or " ".join(_RELEASES)).split()
    outcomes = [outcome for suite in suites for outcome in fresh.scenarios(suite)]
    failed = [outcome for outcome in outcomes if not outcome.passed]
    print(f"{len(outcomes) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SetupError as error:
        print(error.report(), file=sys.stderr)
        sys.exit(1)
