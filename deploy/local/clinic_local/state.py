"""What the supervisor tells about itself in `.run/`: its lock, its processes, the addresses it found free."""

import fcntl
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clinic_local.errors import SetupError
from clinic_local.paths import CHECKOUT, run_dir, write_private


def root() -> Path:
    """Return the folder that holds `.run/`: the checkout, or what `CLINIC_ROOT` names (a second system in tests)."""
    return Path(os.environ.get("CLINIC_ROOT") or CHECKOUT)


@dataclass
class ProcessState:
    name: str
    kind: str
    state: str
    pid: int | None
    restarts: int = 0
    port: int | None = None
    log: str = ""


@dataclass
class RunState:
    supervisor_pid: int
    url: str
    is_ready: bool = False
    management_url: str = ""
    processes: list[ProcessState] = field(default_factory=list)

    def write(self, root: Path) -> None:
        write_private(_folder(root) / "state.json", json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, root: Path) -> "RunState | None":
        """Return what the running supervisor wrote last, or None when none runs or it has just begun."""
        if not is_running(root):
            return None
        try:
            raw: dict[str, Any] = json.loads((_folder(root) / "state.json").read_text())
        except (FileNotFoundError, ValueError):
            return None
        if raw["supervisor_pid"] != supervisor_pid(root):
            return None  # of the run before: this one has only begun
        return cls(**{**raw, "processes": [ProcessState(**process) for process in raw["processes"]]})

    def process(self, name: str) -> ProcessState | None:
        return next((process for process in self.processes if process.name == name), None)


def _folder(root: Path) -> Path:
    return run_dir(root) / "state"


@contextmanager
def supervisor_lock(root: Path) -> Iterator[None]:
    """Hold the checkout for one supervisor: until its process has ended, however that ends, and not a moment less.

    So that whoever sees the lock free, as `clinic down` waits to, finds nobody left.
    """
    descriptor = os.open(run_dir(root) / "supervisor.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise SetupError("supervisor", "it runs already", "See: make status") from None
    pid_file = run_dir(root) / "supervisor.pid"
    pid_file.write_text(f"{os.getpid()}\n")
    try:
        yield
    finally:
        pid_file.unlink(missing_ok=True)


def is_running(root: Path) -> bool:
    with (run_dir(root) / "supervisor.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def supervisor_pid(root: Path) -> int | None:
    try:
        return int((run_dir(root) / "supervisor.pid").read_text())
    except (FileNotFoundError, ValueError):
        return None


def pids_before(root: Path) -> list[int]:
    """Return the processes of the run before this one, as far as it told: killed, it may not have seen them end."""
    try:
        raw: dict[str, Any] = json.loads((_folder(root) / "state.json").read_text())
    except (FileNotFoundError, ValueError):
        return []
    return [process["pid"] for process in raw["processes"] if process["pid"] is not None]


def write_env(root: Path, variables: Mapping[str, str]) -> None:
    """Write `.run/env`, to be sourced: `. .run/env`."""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
    file = run_dir(root) / "env"
    draft = run_dir(root) / "env.draft"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as env:
        env.writelines(lines)
    draft.rename(file)


def read_env(root: Path) -> dict[str, str]:
    """Return the variables of `.run/env`; none before the first `make up`."""
    try:
        words = shlex.split((run_dir(root) / "env").read_text(), comments=True)
    except FileNotFoundError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


def clinic_url() -> str:
    """Return the gateway's address: `CLINIC_URL`, else the one of the system that runs here."""
    url = os.environ.get("CLINIC_URL") or read_env(root()).get("CLINIC_URL")
    if not url:
        raise SetupError("clinic", "nothing runs here and CLINIC_URL isn't set", "Start it with: make up")
    return url


def refuse_production(component: str) -> None:
    """Raise SetupError where `CLINIC_ENV` says production: this machine's systems are for development."""
    if "production" in {os.environ.get("CLINIC_ENV"), os.environ.get("CLINIC_ENVIRONMENT")}:
        raise SetupError(
            component,
            "it runs with development secrets and demo users, and CLINIC_ENV says production",
            "For production see deploy/k8s and deploy/compose; for development: unset CLINIC_ENV",
        )
