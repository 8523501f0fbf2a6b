"""What this machine has to offer of disk and memory, looked at before anything is started or downloaded.

Standard library only: bootstrap.py uses this before any package is there.
"""

import os
import re
import shutil
from pathlib import Path

from clinic_local.errors import SetupError

# Least to begin with, and what lets one work for a while.
PACKAGES_BYTES = 700_000_000
DATA_BYTES, COMFORTABLE_DATA_BYTES = 700_000_000, 2_000_000_000
MEMORY_BYTES, COMFORTABLE_MEMORY_BYTES = 800_000_000, 1_500_000_000
_ANYWAY = "To go on regardless: export CLINIC_MACHINE_CHECKS=no"


def free_disk(folder: Path) -> int:
    """Return the bytes that we may still write below `folder`, which needn't exist yet."""
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free


def available_memory(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes that can be had without swapping: the machine's, or less if our container is limited."""
    meminfo = _read(proc / "meminfo")
    match = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, flags=re.MULTILINE)
    figures = [int(match[1]) * 1024] if match else []
    own = re.search(r"^0::/(\S*)", _read(proc / "self/cgroup"), flags=re.MULTILINE)
    group = cgroups / (own[1] if own else "")
    while group.is_relative_to(cgroups):
        figures += _left_in(group)
        group = group.parent
    figures += _left_in_v1(cgroups / "memory")
    return min(figures, default=None)


def _left_in(group: Path) -> list[int]:
    limit, used = _read(group / "memory.max").strip(), _read(group / "memory.current").strip()
    return [int(limit) - int(used) + _reclaimable(group)] if limit.isdigit() and used.isdigit() else []


def _left_in_v1(group: Path) -> list[int]:
    limit, used = (
        _read(group / "memory.limit_in_bytes").strip(),
        _read(group / "memory.usage_in_bytes").strip(),
    )
    return [int(limit) - int(used) + _reclaimable(group)] if limit.isdigit() and used.isdigit() else []


def _reclaimable(group: Path) -> int:
    """What was read from files counts as used, and is given back when somebody needs it."""
    match = re.search(r"^(?:total_)?inactive_file (\d+)", _read(group / "memory.stat"), flags=re.MULTILINE)
    return int(match[1]) if match else 0


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def require_disk(folder: Path, needed: int) -> None:
    free = free_disk(folder)
    if free < needed and not _is_told_to_go_on():
        raise SetupError(
            "disk",
            f"{megabytes(free)} are free at {folder}, and {megabytes(needed)} are needed",
            f"Free some space there.\n{_ANYWAY}",
        )


def require_memory(needed: int = MEMORY_BYTES) -> None:
    available = available_memory()
    if available is not None and available < needed and not _is_told_to_go_on():
        raise SetupError(
            "memory",
            f"{megabytes(available)} are available, and {megabytes(needed)} are needed",
            f"Close something, or give this container more memory.\n{_ANYWAY}",
        )


def _is_told_to_go_on() -> bool:
    return os.environ.get("CLINIC_MACHINE_CHECKS") == "no"


def megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
