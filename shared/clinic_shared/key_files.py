"""Private keys in files: whole from the first byte on, readable by the owner only, the first one stays."""

import contextlib
import os
import tempfile
from pathlib import Path

from clinic_shared.production import DEVELOPMENT_MARK


def keep_first(file: Path, pem: bytes) -> None:
    """Write a key unless there is one; of several processes that try, the first one's stays."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.") as written:  # mode 0600
        written.write(pem)
        written.flush()
        with contextlib.suppress(FileExistsError):
            os.link(written.name, file)


def marked_for_development(pem: bytes) -> bytes:
    """Put the mark that production refuses before the key (RFC 7468, 2: explanatory text)."""
    return f"{DEVELOPMENT_MARK}key: made by a machine for itself\n".encode() + pem
