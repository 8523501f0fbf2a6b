"""How a start goes on, told by the supervisor line by line to whoever asked for the start."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

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
