"""Some processes of a system run another release's code: how an upgrade looks halfway through.

`CLINIC_OTHER_RELEASE=*-worker=/path/to/its/checkout` names them by a pattern of process names.
"""

import os
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path


def other_release(process: str, package: str, role: str) -> Callable[[], None] | None:
    """Return what runs a process with the other release's code, or None for one that runs ours."""
    pattern, _, checkout = os.environ.get("CLINIC_OTHER_RELEASE", "").partition("=")
    if not checkout or not fnmatch(process, pattern):
        return None
    return partial(_become, Path(checkout), package, role)


def _become(checkout: Path, package: str, role: str) -> None:
    # An interpreter of its own, since ours has this release's modules loaded; packages come from the same .venv.
    folders = [checkout / "shared", checkout / "gateway", *sorted((checkout / "services").iterdir())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    os.chdir(checkout)
    os.execve(sys.executable, [sys.executable, "-m", package, role], environment)  # noqa: S606
