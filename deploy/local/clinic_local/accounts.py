"""Whom PostgreSQL runs as: ourselves, but as root somebody else, since it refuses root. No account is ever created.

Standard library only: bootstrap.py uses this before any package is there.
"""

import os
import pwd
import re
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from clinic_local.errors import SetupError

# Linux' numbers of what root needs to hand data and a process to another user, and to stop that process.
_CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "KILL": 5, "SETGID": 6, "SETUID": 7}


@dataclass(frozen=True)
class ServerUser:
    """The unprivileged account that PostgreSQL gets when we are root."""

    name: str
    uid: int
    gid: int


def server_user() -> ServerUser | None:
    """Return the account for PostgreSQL, or None when the current one will do."""
    if os.getuid() != 0:
        return None
    missing = missing_capabilities(_own_status())
    if missing:
        raise _no_way_to_switch(f"this root lacks the capabilities {', '.join(missing)}")
    accounts = sorted(pwd.getpwall(), key=lambda account: account.pw_name != "nobody")
    others = [ServerUser(a.pw_name, a.pw_uid, a.pw_gid) for a in accounts if a.pw_uid != 0]
    if not others:
        raise _no_way_to_switch("this machine has no other account")
    chosen = next((user for user in others if _can_become(user)), None)
    if chosen is None:
        raise _no_way_to_switch("this root can't become anybody else")
    return chosen


def missing_capabilities(status: str) -> list[str]:
    """Return what the process of this `/proc/<pid>/status` lacks; nothing where the system doesn't tell."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)", status, flags=re.MULTILINE)
    if match is None:
        return []
    effective = int(match[1], 16)
    return [name for name, number in _CAPABILITIES.items() if not effective >> number & 1]


def _own_status() -> str:
    try:
        return Path("/proc/self/status").read_text()
    except OSError:
        return ""


def _can_become(user: ServerUser) -> bool:
    """Tell whether the kernel lets us: in a user namespace most accounts don't exist."""
    try:
        subprocess.run(["true"], user=user.uid, group=user.gid, extra_groups=[], check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _no_way_to_switch(reason: str) -> SetupError:
    capabilities = " ".join(f"--cap-add={name}" for name in _CAPABILITIES)
    return SetupError(
        "postgres",
        f"PostgreSQL refuses to run as root, and {reason}",
        "Choose one:\n"
        "1. run this as an ordinary user; in a container: docker run --user 1000:1000 ...\n"
        f"2. let root give up its rights for PostgreSQL: docker run {capabilities} ...\n"
        "3. give a server that runs elsewhere: export CLINIC_POSTGRES_URL=postgresql://admin:password@host:5432/postgres",
    )


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


def has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
