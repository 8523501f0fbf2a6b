"""What a run prints: faults by name, operations by kind, and the sums."""

from collections import Counter
from collections.abc import Sequence

from .accounting import Verdict, Violation
from .scene import Injection
from .traps import CRASH, CRASH_POINTS

_COLUMNS = ("injected", "acknowledged", "refused", "unknown", "lost", "doubled", "phantom")


def faults(injections: Sequence[Injection]) -> str:
    done = Counter(injection.nemesis for injection in injections)
    hit = Counter(injection.nemesis for injection in injections if injection.hit)
    rows = [(name, str(count), str(hit[name])) for name, count in sorted(done.items())]
    total = ("faults", str(sum(done.values())), str(sum(hit.values())))
    return _table(("fault", "injected", "hit"), [*rows, total])


def crash_points(injections: Sequence[Injection]) -> str:
    """Return at which crash points somebody has died, at which nobody has, and which were not tried."""
    known = {f"{service} {label}" for service, labels in CRASH_POINTS.items() for label in labels}
    tried = {injection.target for injection in injections if injection.nemesis == CRASH}
    met = {injection.target for injection in injections if injection.nemesis == CRASH and injection.hit}
    lists = (
        (f"crash points: {len(met)} of {len(known)} met", met),
        ("tried in vain", tried - met),
        ("not tried", known - tried),
    )
    return "\n".join(f"{what}: {', '.join(sorted(which))}" for what, which in lists if which)


def operations(verdict: Verdict) -> str:
    rows = [(line.kind, *(str(getattr(line, column)) for column in _COLUMNS)) for line in verdict.lines]
    return _table(("operation", *_COLUMNS), rows)


def sums(verdict: Verdict) -> str:
    """Return the last line. Events, deliveries and audit records that contradict are counted in it, too."""
    return "sums: " + ", ".join(f"{name} {count}" for name, count in _sums(verdict).items())


def _sums(verdict: Verdict) -> dict[str, int]:
    return {
        "injected": sum(line.injected for line in verdict.lines),
        "acknowledged": sum(line.acknowledged for line in verdict.lines),
        "lost": verdict.count(Violation.LOST),
        "doubled": verdict.count(Violation.DUPLICATE),
        "phantom": verdict.count(Violation.PHANTOM),
    }


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (columns, *rows)
    ]
    return "\n".join(line.rstrip() for line in lines)
