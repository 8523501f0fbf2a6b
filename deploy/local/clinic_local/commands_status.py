"""`clinic status`: what runs, what it costs, and what waits in it."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from clinic_local import loopback
from clinic_local.broker_alarms import broker_alarms
from clinic_local.errors import SetupError
from clinic_local.state import ProcessState, RunState, root

_GAUGES = {
    "outbox_pending": "clinic_outbox_pending",
    "held": "clinic_held_messages",
    "parked": "clinic_parked_messages",
}
# So that a pipe or a narrow window gets whole names rather than dots.
_TABLE_WIDTH = 100


@dataclass(frozen=True)
class ProcessStatus:
    """One line of the table; None where a figure doesn't apply or couldn't be read."""

    name: str
    state: str
    pid: int | None
    memory_bytes: int | None
    restarts: int
    queued: int | None
    outbox_pending: int | None
    held: int | None
    parked: int | None


def collect(running: RunState) -> list[ProcessStatus]:
    depths = queue_depths(running.management_url)
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda process: _status(process, depths), running.processes))


def _status(process: ProcessState, depths: dict[str, int] | None) -> ProcessStatus:
    # Of split roles the worker measures; the API knows nothing of it.
    measures = process.kind == "service" and not process.name.endswith("-api")
    gauges = read_gauges(process.port) if measures else {}
    service = process.name.removesuffix("-worker")
    return ProcessStatus(
        process.name,
        process.state,
        process.pid,
        memory_bytes(process.pid),
        process.restarts,
        depths.get(service, 0) if measures and depths is not None else None,
        *(gauges.get(name) for name in _GAUGES),
    )


def memory_bytes(pid: int | None) -> int | None:
    """Return the proportional set size: shared pages are split between those who share them."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    match = re.search(r"^Pss:\s+(\d+) kB", rollup, flags=re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def read_gauges(port: int | None) -> dict[str, int]:
    """Read a service's own figures from its `/metrics`; what it doesn't tell is missing."""
    if port is None:
        return {}
    try:
        _, body = loopback.get(f"http://127.0.0.1:{port}/metrics", timeout_seconds=2)
    except OSError:
        return {}
    text = body.decode()
    found = {}
    for name, metric in _GAUGES.items():
        values = re.findall(rf"^{metric}(?:{{[^}}]*}})? (\S+)$", text, flags=re.MULTILINE)
        if values:
            found[name] = int(sum(float(value) for value in values))
    return found


def queue_depths(management_url: str) -> dict[str, int] | None:
    """Return the messages waiting per consumer; queues are called `<consumer>.<producer>`."""
    try:
        queues: list[dict[str, Any]] = loopback.get_json(
            f"{management_url}/api/queues/%2F", timeout_seconds=3
        )
    except (OSError, ValueError):
        return None
    depths: dict[str, int] = {}
    for queue in queues:
        consumer = queue["name"].partition(".")[0]
        depths[consumer] = depths.get(consumer, 0) + queue.get("messages", 0)
    return depths


def status(*, as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False) -> None:
    """Show every process: state, pid, memory, restarts, and the messages that wait in it."""
    running = RunState.read(root())
    if running is None:
        raise SetupError("clinic", "nothing runs here", "Start it with: make up")
    processes = collect(running)
    alarms = broker_alarms(running.management_url)
    if as_json:
        print(
            json.dumps(
                {
                    "url": running.url,
                    "is_ready": running.is_ready,
                    "supervisor_pid": running.supervisor_pid,
                    "broker_alarms": [asdict(alarm) for alarm in alarms],
                    "processes": [asdict(process) for process in processes],
                },
                indent=1,
            )
        )
        return
    memory = memory_bytes(running.supervisor_pid)
    supervisor = ProcessStatus(
        "supervisor", "running", running.supervisor_pid, memory, 0, None, None, None, None
    )
    console = Console(highlight=False)
    console.width = max(console.width, _TABLE_WIDTH)
    console.print(_table([supervisor, *processes]))
    python = [p for p in (supervisor, *processes) if p.name not in {"postgres", "rabbitmq"}]
    total = sum(process.memory_bytes or 0 for process in python)
    print(f"{running.url}  {len(python)} Python processes, {total / 1e6:.0f} MB")
    for alarm in alarms:
        console.print(f"rabbitmq: {alarm.what}\n{alarm.advice}", style="red", markup=False, soft_wrap=True)


def _table(processes: list[ProcessStatus]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("process", "state"):
        table.add_column(title)
    for title in ("pid", "memory", "restarts", "queued", "outbox", "held", "parked"):
        table.add_column(title, justify="right")
    for p in processes:
        memory = None if p.memory_bytes is None else f"{p.memory_bytes / 1e6:.0f} MB"
        colour = "green" if p.state == "running" else "yellow"
        table.add_row(
            p.name,
            f"[{colour}]{p.state}[/]",
            *(_cell(v) for v in (p.pid, memory, p.restarts, p.queued, p.outbox_pending, p.held, p.parked)),
        )
    return table


def _cell(value: object) -> str:
    return "-" if value is None else str(value)
