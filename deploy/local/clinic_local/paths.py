"""Where local files lie: `.run/` in the checkout, or a state folder of its own where a server can't use `.run/`.

Two things make `.run/` unusable: a server that runs as another user can't enter it (a clone under /root),
or its path has characters that RabbitMQ's shell scripts break on (spaces, letters beyond ASCII).
"""

import hashlib
import os
import pwd
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from clinic_local.errors import SetupError

_SHELL_SAFE = re.compile(r"[A-Za-z0-9._/+@:-]+")
CHECKOUT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class ServerUser:
    """The unprivileged account that PostgreSQL gets when we are root: it refuses to run as root."""

    name: str
    uid: int
    gid: int


def server_user() -> ServerUser | None:
    """Return the account for PostgreSQL, or None when the current one will do. No account is ever created."""
    if os.getuid() != 0:
        return None
    accounts = sorted(pwd.getpwall(), key=lambda account: account.pw_name != "nobody")
    for account in accounts:
        if account.pw_uid != 0:
            return ServerUser(account.pw_name, account.pw_uid, account.pw_gid)
    raise SetupError(
        "postgres",
        "PostgreSQL refuses to run as root and this machine has no other account",
        "Add the account nobody to /etc/passwd, or set CLINIC_POSTGRES_URL to a server that runs elsewhere.",
    )


def is_shell_safe(path: Path) -> bool:
    return _SHELL_SAFE.fullmatch(str(path)) is not None


def can_enter(path: Path, user: ServerUser | None) -> bool:
    """Tell whether `user` (None: ourselves) can reach `path` through all the folders above it."""
    existing = next(p for p in (path, *path.parents) if p.exists())
    if user is None:
        return os.access(existing, os.X_OK)
    return all(_may(folder.stat(), user) for folder in (existing, *existing.parents))


def _may(status: os.stat_result, user: ServerUser) -> bool:
    if status.st_uid == user.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == user.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def run_dir(root: Path) -> Path:
    folder = root / ".run"
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    return folder


def private_dir(folder: Path) -> Path:
    """Create a folder that only we can read."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def write_private(path: Path, text: str) -> None:
    """Write a secret: readable by its owner only from the first byte on, whole or not at all."""
    private_dir(path.parent)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.rename(path)


def state_path(root: Path) -> Path:
    """Return where the checkout's folder outside the checkout lies, if it was needed."""
    digest = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:12]
    return Path("/var/tmp") / f"polyclinic-{os.getuid()}-{digest}"  # noqa: S108 - `state_dir` checks who owns it


def state_dir(root: Path) -> Path:
    """Return the checkout's folder outside the checkout, made by us and by nobody else.

    Its name can be guessed and /var/tmp is open to all, so a folder that someone else put there is refused.
    """
    folder = state_path(root)
    folder.mkdir(mode=0o711, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & stat.S_IWOTH:
        raise SetupError("files", f"{folder} belongs to someone else", f"Remove {folder} and try again.")
    return folder


def server_dir(root: Path, preferred: Path, user: ServerUser | None, *, shell_safe: bool = False) -> Path:
    """Return `preferred` when the server can live there, else its twin in the state folder."""
    if can_enter(preferred.parent, user) and (not shell_safe or is_shell_safe(preferred)):
        return preferred
    return state_dir(root) / preferred.relative_to(run_dir(root))


def cache_dir(root: Path) -> Path:
    """Return the folder for downloads; several checkouts share it."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(home) / "polyclinic"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = run_dir(root) / "cache"
    if not is_shell_safe(folder) or not os.access(folder if folder.exists() else folder.parent, os.W_OK):
        folder = state_dir(root) / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
