"""Shows the steps of a start to a person: a line per gate, and on a terminal what is being waited for."""

import json
import os
from collections.abc import Iterable
from contextlib import nullcontext

from rich.console import Console
from rich.status import Status
from rich.text import Text

from clinic_local.steps import Step


def show(lines: Iterable[bytes], console: Console) -> Step | None:
    """Show the steps as they come; return the last one (failed or ready), or None if the supervisor vanished."""
    active: list[str] = []
    spinner = console.status("starting") if console.is_terminal else None
    with spinner or nullcontext():
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


def _line(step: Step) -> Text:
    return Text.assemble(
        ("  ✓ " if os.environ.get("LANG", "").upper().endswith("UTF-8") else "  ok ", "green"),
        f"{step.gate:<14}",
        (f"{step.seconds:5.1f} s  ", "cyan"),
        (step.detail, "dim"),
    )
