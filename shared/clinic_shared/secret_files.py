"""Secrets as files: `CLINIC_X` is the content of the file `clinic_x` in the folder `CLINIC_SECRETS_DIR`.

For what reads its settings from a mapping; services have pydantic-settings do the same.
"""

from collections.abc import Mapping
from pathlib import Path

PREFIX = "CLINIC_"
SECRETS_DIR = "CLINIC_SECRETS_DIR"


def with_secret_files(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the files' settings added; what the environment says itself wins."""
    folder = environ.get(SECRETS_DIR)
    files = sorted(Path(folder).iterdir()) if folder else []
    found = {
        file.name.upper(): file.read_text(encoding="utf-8").strip()
        for file in files
        if file.name.upper().startswith(PREFIX) and file.is_file()
    }
    return {**found, **environ}
