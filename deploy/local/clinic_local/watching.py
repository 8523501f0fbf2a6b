"""How far a replay is, told on one line: events, rate, share, time left. Only a terminal gets more than one."""

import sys
import time
from types import TracebackType
from typing import Any, Self

from clinic_local.api_client import Caller

_RATE_OVER_SECONDS = 10.0


class Watch:
    """Standard error, so that what a command prints stays clean."""

    every_seconds = 0.5

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []
        self._on_terminal = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._on_terminal:
            print(file=sys.stderr)
        if kind is KeyboardInterrupt:
            print("Not watched any longer; it goes on by itself.", file=sys.stderr)

    def jobs(self, caller: Caller, replay_id: str) -> list[dict[str, Any]]:
        """Return what each owner has sent so far."""
        merged = caller.get("/v1/ops/replays")
        return [job for job in merged.get("jobs", []) if job["replay_id"] == replay_id]

    def tell(self, state: str, done: int, total: int, remark: str = "") -> None:
        if not self._on_terminal:
            return
        rate = self._rate(done)
        share = f"{100 * done / total:.0f} %" if total else ""
        left = f"{(total - done) / rate:.0f} s left" if rate and total > done else ""
        told = [state, f"{done:,} events", f"{rate:,.0f}/s", share, left, remark]
        print("\r\x1b[K" + "  ".join(filter(None, told)), end="", file=sys.stderr, flush=True)

    def _rate(self, done: int) -> float:
        now = time.monotonic()
        self._seen = [seen for seen in self._seen if seen[0] > now - _RATE_OVER_SECONDS] + [(now, done)]
        (begun_at, before) = self._seen[0]
        return (done - before) / (now - begun_at) if now > begun_at else 0.0
