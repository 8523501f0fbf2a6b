"""Named points at which a process can be told to die or to misbehave, so that safety is proven.

`CLINIC_CRASH_AT=<label>[:<n>]` kills the process with SIGKILL at the n-th passage (default the first).
`CLINIC_CRASH_FILE` names a file that arms a running process: while it holds a label, the next passage
kills, and leaves the file renamed to `<file>.hit`.
`CLINIC_MUTATION=<name>` switches one safeguard off, to show that the tests notice; test environments only.
All are refused in production by `clinic_shared.main`.
"""

import os
import signal
from pathlib import Path

SWITCHES = ("CLINIC_CRASH_AT", "CLINIC_CRASH_FILE", "CLINIC_MUTATION")

_passages: dict[str, int] = {}


def crash_point(label: str) -> None:
    """Die here if told to. Costs two look-ups otherwise."""
    target = os.environ.get("CLINIC_CRASH_AT")
    if target is not None:
        _crash_if_counted(label, target)
    file = os.environ.get("CLINIC_CRASH_FILE")
    if file is not None:
        _crash_if_armed(label, Path(file))


def _crash_if_counted(label: str, target: str) -> None:
    wanted, _, count = target.partition(":")
    if label != wanted:
        return
    _passages[label] = _passages.get(label, 0) + 1
    if _passages[label] == int(count or "1"):
        witness = os.environ.get("CLINIC_CRASH_WITNESS")
        if witness:
            Path(witness).write_text(label, encoding="utf-8")
        os.kill(os.getpid(), signal.SIGKILL)


def _crash_if_armed(label: str, file: Path) -> None:
    try:
        armed = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    if armed == label:
        file.rename(f"{file}.hit")
        os.kill(os.getpid(), signal.SIGKILL)


def mutated(name: str) -> bool:
    """Tell whether this safeguard is switched off. Raises RuntimeError outside the test environment."""
    mutation = os.environ.get("CLINIC_MUTATION")
    if mutation is None:
        return False
    if os.environ.get("CLINIC_ENVIRONMENT") != "test":
        raise RuntimeError("CLINIC_MUTATION is set outside CLINIC_ENVIRONMENT=test")
    return mutation == name
