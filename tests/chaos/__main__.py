"""`make chaos SEED=... DURATION=seconds`: a system of its own, under faults, and what came of it."""

import argparse
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from . import report
from .matrix import run
from .scene import NEMESES
from .stage import staged


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--duration", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument(
        "--faults", type=int, metavar="N", help="end when so many have been met, if that is sooner"
    )
    parser.add_argument("--only", type=_names, default=(), metavar="NAMES", help="no other faults than these")
    options = parser.parse_args()
    # So that the system is taken down, whoever ends the run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print(f"SEED={options.seed} DURATION={options.duration:g}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="polyclinic-chaos-") as folder,
        staged(Path(folder), random.Random(options.seed)) as stage,
    ):
        done = run(
            stage,
            seed=options.seed,
            seconds=options.duration,
            faults=options.faults,
            only=options.only,
            tell=_tell,
        )
    print(
        "",
        report.faults(done.injections),
        "",
        report.crash_points(done.injections),
        "",
        report.operations(done.verdict),
        "",
        *done.verdict.remarks,
        done.verdict,
        report.sums(done.verdict),
        sep="\n",
    )
    return 0 if done.passed else 1


def _names(given: str) -> tuple[str, ...]:
    """Return the faults that are named in a text: some have commas in their names."""
    names = tuple(name for name in NEMESES if name in given)
    if not names:
        raise argparse.ArgumentTypeError(f"no such fault; there are: {'; '.join(NEMESES)}")
    return names


def _tell(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
