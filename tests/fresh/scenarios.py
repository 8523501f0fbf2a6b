"""What is tried on newly installed machines: who does it, on what kind of file system, and what must come of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fresh import image
from fresh.machines import NAMELESS, ORDINARY, ROOT, Machine, User

TESTS = {"full": "make test", "quick": "make check", "none": "true"}
# One request through the gateway to every service, as the README shows it, without curl.
_REQUEST = (
    "import os, urllib.request as r; print(r.urlopen(os.environ['CLINIC_URL'] + '/readyz').read().decode())"
)
_UP_AND_DOWN = f"""
cd "$CLONE"
touch /tmp/began
make up
. .run/env
python3 -c "{_REQUEST}"
make status
make down
left=$(grep -hvE '^[0-9]+ \\(.*\\) Z' /proc/[0-9]*/stat 2>/dev/null | grep -E 'python|postgres|beam|epmd|clinic' || true)
if [ -n "$left" ]; then echo "still running: $left"; exit 1; fi
strays=$(find / -xdev -newer /tmp/began -type f -not -path "$CLONE/*" -not -path "$HOME/.cache/*" \
    -not -path "$HOME/.local/state/*" -not -path "/var/lib/polyclinic/*" -not -path "/var/tmp/polyclinic-*" \
    -not -path "/tmp/*" 2>/dev/null || true)
if [ -n "$strays" ]; then echo "written outside of the clone and its caches: $strays"; exit 1; fi
"""
_NOEXEC = """
mount --bind "$CLONE" "$CLONE"
mount -o remount,bind,noexec "$CLONE"
"""
_WITHOUT_CAPABILITIES = """
cd "$CLONE"
if setpriv --bounding-set=-all --inh-caps=-all make up >/tmp/said 2>&1; then cat /tmp/said; exit 1; fi
cat /tmp/said
grep -q 'lacks the capabilities' /tmp/said
if grep -q Traceback /tmp/said; then exit 1; fi
"""


@dataclass(frozen=True)
class Scenario:
    what: str
    name: str
    run: Callable[[Machine, Path], bool]


def scenarios(tests: str) -> Iterator[Scenario]:
    """Return the scenarios of one release; `tests` says which tests follow the two commands."""
    up = "make up, a request, make down"
    yield Scenario(f"as root: {up}; {TESTS[tests]}", "root", _script(ROOT, _UP_AND_DOWN, tests))
    yield Scenario(
        f"as an ordinary user: {up}; {TESTS[tests]}", "user", _script(ORDINARY, _UP_AND_DOWN, tests)
    )
    yield Scenario(
        f"as a user without a passwd entry or a home: {up}", "nameless", _script(NAMELESS, _UP_AND_DOWN)
    )
    yield Scenario(
        f"as root with umask 077 in a noexec clone: {up}",
        "noexec",
        _script(ROOT, f"umask 077{_NOEXEC}{_UP_AND_DOWN}"),
    )
    yield Scenario(
        "as root without capabilities: words, no traceback", "dropped", _script(ROOT, _WITHOUT_CAPABILITIES)
    )
    yield Scenario("the image, and one service from it", "image", image.build_and_start)


def _script(user: User, script: str, tests: str = "none") -> Callable[[Machine, Path], bool]:
    def run(machine: Machine, log: Path) -> bool:
        machine.add(user)
        if machine.run(user, script, log=log) != 0:
            return False
        return machine.run(user, f'cd "$CLONE"; {TESTS[tests]}', log=log) == 0

    return run
