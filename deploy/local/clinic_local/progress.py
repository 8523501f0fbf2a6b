"""How a start goes on, told by the supervisor line by line and shown by `clinic up` (rich on a terminal)."""

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Literal

from rich.console import Console
from rich.status import Status
from rich.text import Text

What = Literal["begun", "done", "failed", "ready"]


@dataclass(frozen=True)
class Step:
    """`gate` begun or done; at the end either failed, with a whole report, or ready, with the address."""

    what: What
    gate: str
    detail: str = ""
    seconds: float = 0.0


class Reporter:
    """The supervisor's end. A listener that went away is no reason to stop."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def tell(self, step: Step) -> None:
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, json.dumps(asdict(step)).encode() + b"\n")
        except OSError:
            self._descriptor = None

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @contextmanager
    def gate(self, name: str) -> Iterator[list[str]]:
        """Report a gate's duration; the block may add words to the list it gets."""
        self.tell(Step("begun", name))
        started = time.monotonic()
        detail: list[str] = []
        yield detail
        self.tell(Step("done", name, ", ".join(detail), time.monotonic() - started))


def show(lines: Iterable[bytes], console: Console) -> Step | None:
    """Show the steps as they come; return the last one (failed or ready), or None if the supervisor vanished."""
    active: list[str] = []
    spinner = console.status("starting") if console.is_terminal else None
    with spinner or nothing():
        for line in lines:
            step = Step(**json.loads(line))
            if step.what in {"failed", "ready"}:
                return step
            if step.what == "begun":
                active.append(step.gate)
            else:
                active.remove(step.gate)
                console.print(_line(step), soft_wrap=True)
            if isinstance(spinner, Status):
                spinner.update(", ".join(active) or "starting")
    return None


def nothing() -> AbstractContextManager[None]:
    return nullcontext()


def _line(step: Step) -> Text:
    return Text.assemble(
        ("  ✓ " if os.environ.get("LANG", "").upper().endswith("UTF-8") else "  ok ", "green"),
        f"{step.gate:<14}",
        (f"{step.seconds:5.1f} s  ", "cyan"),
        (step.detail, "dim"),
    )
