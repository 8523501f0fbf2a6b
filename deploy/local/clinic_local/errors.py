"""The one way in which local set-up fails: who, why, and what to do about it; never a traceback."""

from pathlib import Path

LOG_LINES = 15


class SetupError(Exception):
    """A component couldn't be made to run on this machine.

    `advice` is one or more sentences a person can act on; `log` is a file whose last lines explain the cause.
    """

    def __init__(self, component: str, cause: str, advice: str = "", *, log: Path | None = None) -> None:
        super().__init__(f"{component}: {cause}")
        self.component = component
        self.cause = cause
        self.advice = advice
        self.log = log

    def report(self) -> str:
        lines = [f"{self.component}: {self.cause}"]
        if self.log is not None:
            lines += [f"  last lines of {self.log}:", *(f"    {line}" for line in last_lines(self.log))]
        if self.advice:
            lines += ["What to do:", *(f"  {line}" for line in self.advice.splitlines())]
        return "\n".join(lines)


def last_lines(log: Path, count: int = LOG_LINES) -> list[str]:
    try:
        return log.read_text(errors="replace").splitlines()[-count:]
    except OSError as error:
        return [f"(can't be read: {error.strerror})"]
