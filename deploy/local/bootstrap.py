# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ANN001, ANN201, ANN202, INP001, PTH118, PTH123, S606, UP010, UP031
"""Makes a fresh clone runnable: installs exactly what uv.lock says into .venv. `clinic_local.packages` does it.

This file is written for any Python since 2.7, if only to say which one is needed.
"""

from __future__ import print_function

import os
import subprocess
import sys

OLDEST_PYTHON = (3, 11)
NEWEST_PYTHON = (3, 19)
ADVICE = """\
bootstrap: Python 3.11 or newer is needed, and this is %s.
  Install one (Debian 12, Ubuntu 24.04 and newer have it: apt-get install python3), or name one that is here:
  make PYTHON=/path/to/python3.11 ..."""


def newer_python():
    """Return a Python on PATH that is new enough, the newest first."""
    for minor in range(NEWEST_PYTHON[1], OLDEST_PYTHON[1] - 1, -1):
        for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
            candidate = os.path.join(folder, "python3.%d" % minor)
            # One of pyenv's may be there and yet do nothing but complain.
            if os.access(candidate, os.X_OK) and _runs(candidate):
                return candidate
    return None


def _runs(python):
    with open(os.devnull, "w") as nothing:
        return subprocess.call([python, "-c", ""], stdout=nothing, stderr=nothing) == 0


def main():
    if sys.version_info < OLDEST_PYTHON:
        newer = newer_python()
        if newer is None:
            print(ADVICE % sys.version.split()[0], file=sys.stderr)
            return 1
        os.execv(newer, [newer] + sys.argv)  # noqa: RUF005
    from clinic_local import packages  # noqa: PLC0415 - older ones can't read it

    return packages.main()


if __name__ == "__main__":
    sys.exit(main())
