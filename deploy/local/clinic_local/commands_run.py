"""`clinic up | down | restart | reset | logs | env`: the system on this machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from clinic_local import progress, state
from clinic_local.errors import SetupError, last_lines
from clinic_local.paths import local_data, remove_local_data, run_dir
from clinic_local.steps import Step

_DOWN_SECONDS = 20.0
_RESTART_SECONDS = 60.0


Without = Annotated[
    str, typer.Option("--without", envvar="CLINIC_WITHOUT", help="services to leave out, comma separated")
]


def up(*, without: Without = "") -> None:
    """Start everything on this machine and print where it answers."""
    from clinic_local import modules  # noqa: PLC0415 - `clinic down` needn't load the contracts

    state.refuse_production("up")
    console = Console(highlight=False)
    root = state.root()
    os.environ[modules.WITHOUT] = without
    modules.chosen(os.environ)
    if state.is_running(root):
        running = state.RunState.read(root)
        if running is not None and running.is_ready:
            console.print(f"Polyclinic runs already at {running.url}. See: make status")
        else:
            console.print("Polyclinic is being started already. See: make logs")
        return
    modules.remember(root, without)
    started = time.monotonic()
    last = _start_supervisor(root, console)
    if last is None:
        log = run_dir(root) / "log" / "supervisor.log"
        raise SetupError("supervisor", "it ended unexpectedly", "Try: clinic doctor", log=log)
    if last.what == "failed":
        console.print(last.detail, style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1)
    console.print(f"\nPolyclinic answers at {last.detail} after {time.monotonic() - started:.1f} s")
    _print_logins(root)
    console.print("  addresses   . .run/env      (then $CLINIC_URL and others are set)", markup=False)
    console.print("  next        make demo | make status | make logs | make down", markup=False)


def _start_supervisor(root: Path, console: Console) -> Step | None:
    log = run_dir(root) / "log" / "supervisor.log"
    log.parent.mkdir(exist_ok=True)
    read_end, write_end = os.pipe()
    with log.open("ab") as output:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "clinic_local.supervisor", str(write_end)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(write_end,),
            # A malloc arena per thread would cost each of a dozen processes some megabytes.
            env={**os.environ, "MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "131072"},
            start_new_session=True,
        )
    os.close(write_end)
    try:
        with os.fdopen(read_end, "rb") as lines:
            return progress.show(lines, console)
    except KeyboardInterrupt:
        supervisor.send_signal(signal.SIGTERM)
        console.print("interrupted; stopping what was started")
        supervisor.wait(_DOWN_SECONDS)
        raise typer.Exit(130) from None


def _print_logins(root: Path) -> None:
    """Print who can log in, once there is demo data."""
    from clinic_local.commands_seed import print_logins  # noqa: PLC0415 - `clinic down` needn't load HTTP clients
    from clinic_local.demo_network import Network  # noqa: PLC0415

    network = Network.read(root)
    if network is not None:
        print_logins(network)


def down() -> None:
    """Stop everything; no process stays."""
    root = state.root()
    if not state.is_running(root):
        print("Polyclinic doesn't run.")
        return
    started = time.monotonic()
    pid = state.supervisor_pid(root)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        if not _ended(root, _DOWN_SECONDS):
            # Its children have parent-death signals, its servers guardians: they end with it.
            os.kill(pid, signal.SIGKILL)
            _ended(root, _DOWN_SECONDS)
    print(f"Polyclinic stopped after {time.monotonic() - started:.1f} s.")


def _ended(root: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while state.is_running(root):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def restart(
    service: Annotated[str | None, typer.Argument(help="one process; all if left out")] = None,
) -> None:
    """Stop and start: everything (with changed code), or one process (with the code that is loaded)."""
    if service is None:
        from clinic_local import modules  # noqa: PLC0415 - as above

        down()
        up(without=modules.remembered(state.root()))
        return
    before = _process(service)
    if before.pid is None:
        raise SetupError(service, "it is being restarted already", "See: make status")
    os.kill(before.pid, signal.SIGTERM)
    deadline = time.monotonic() + _RESTART_SECONDS
    while time.monotonic() < deadline:
        now = _process(service)
        if now.pid not in {None, before.pid} and now.state == "running":
            print(f"{service} runs again (pid {now.pid}).")
            return
        time.sleep(0.1)
    raise SetupError(service, "it isn't ready again", "See: make status", log=Path(before.log))


def _process(name: str) -> state.ProcessState:
    running = state.RunState.read(state.root())
    if running is None:
        raise SetupError("clinic", "nothing runs here", "Start it with: make up")
    process = running.process(name)
    if process is None:
        known = ", ".join(process.name for process in running.processes)
        raise SetupError(name, "there is no such process", f"There are: {known}")
    return process


def reset(*, yes: Annotated[bool, typer.Option("--yes", help="don't ask")] = False) -> None:
    """Stop everything and remove all local data: databases, queues, secrets, logs."""
    root = state.root()
    print("This removes " + " and ".join(str(folder) for folder in local_data(root)))
    if not yes and not (sys.stdin and sys.stdin.isatty()):
        raise SetupError("reset", "there is no terminal to ask at", "If you are sure: make reset YES=1")
    if not yes:
        typer.confirm("Remove all local data?", abort=True)
    if state.is_running(root):
        down()
    remove_local_data(root)
    print("Removed. The next start begins from nothing.")


def logs(
    service: Annotated[str | None, typer.Argument(help="one process; all if left out")] = None,
    *,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="go on as lines come")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1)] = 40,
) -> None:
    """Show the last lines of the logs."""
    folder = run_dir(state.root()) / "log"
    files = sorted(folder.glob("*.log")) if service is None else [folder / f"{service}.log"]
    if not all(file.exists() for file in files):
        known = ", ".join(sorted(file.stem for file in folder.glob("*.log")))
        raise SetupError(str(service), "it has no log", f"There are: {known or 'none yet'}")
    width = max((len(file.stem) for file in files), default=0)
    for file in files:
        for line in last_lines(file, lines):
            print(f"{file.stem:<{width}} | {line}" if service is None else line)
    if follow:
        _follow(files, width if service is None else 0)


def _follow(files: Sequence[Path], width: int) -> None:
    opened = {file: file.open(errors="replace") for file in files}
    for handle in opened.values():
        handle.seek(0, os.SEEK_END)
    try:
        while True:
            for file, handle in opened.items():
                for line in handle:
                    print(f"{file.stem:<{width}} | {line}" if width else line, end="", flush=True)
            time.sleep(0.2)
    except KeyboardInterrupt:
        return
    finally:
        for handle in opened.values():
            handle.close()


def env() -> None:
    """Print the addresses of the running system: eval "$(clinic env)"."""
    file = run_dir(state.root()) / "env"
    if not file.exists():
        raise SetupError("clinic", "nothing has run here yet", "Start it with: make up")
    print(file.read_text(), end="")
