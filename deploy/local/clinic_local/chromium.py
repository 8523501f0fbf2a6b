"""Chromium for tests in a real browser: this machine's, or Debian's packages unpacked into the cache.

`make up` never starts it.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from clinic_local import download
from clinic_local.errors import SetupError
from clinic_local.paths import CHECKOUT, cache_dir

NAME = "chromium"
COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# It draws no letter without a font, and minimal images have none.
PACKAGES = ("chromium", "chromium-common", "fonts-dejavu-core")
ADVICE = (
    "Install Chromium or Google Chrome, so that one of these is in the PATH: " + ", ".join(COMMANDS) + ".\n"
    "Ubuntu has no package of it that could be unpacked, only a snap, which sees nothing of /tmp: take\n"
    "Google's package there, https://www.google.com/chrome/"
)
_SCRIPT_BYTES = 64 * 1024
_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{root}/usr/share/fonts</dir><dir>/usr/share/fonts</dir>
<cachedir prefix="xdg">fontconfig</cachedir></fontconfig>
"""


@dataclass(frozen=True)
class Chromium:
    """The program, and what its environment needs besides."""

    program: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def found_or_unpacked(cls) -> Self:
        """Return this machine's, or the distribution's, downloaded at the first call. Raises SetupError."""
        for command in COMMANDS:
            found = shutil.which(command)
            if found and not is_snap(Path(found)):
                return cls(Path(found))
        root = download.unpacked_packages(
            cache_dir(CHECKOUT), NAME, PACKAGES, advice=ADVICE, finish=_name_the_fonts
        )
        program = root / "usr/lib/chromium/chromium"
        if not program.exists():
            raise SetupError(NAME, "the distribution's package holds no program", ADVICE)
        return cls(program, _environment(root))


def is_snap(command: Path) -> bool:
    """Tell whether a command is a snap, or the script that Ubuntu's package is, which asks for one."""
    program = command.resolve()
    if program.name == "snap" or program.is_relative_to("/snap"):
        return True
    with program.open("rb") as file:
        start = file.read(_SCRIPT_BYTES)
    return start.startswith(b"#!") and b"/snap/" in start


def _environment(root: Path) -> dict[str, str]:
    # PulseAudio's library finds a part of itself at the place where it is installed.
    inner = (str(folder) for folder in root.glob("usr/lib/*/pulseaudio"))
    libraries = (download.library_path(root), *inner, os.environ.get("LD_LIBRARY_PATH"))
    path = ":".join(part for part in libraries if part)
    return {"FONTCONFIG_FILE": str(root / "fonts.conf"), **({"LD_LIBRARY_PATH": path} if path else {})}


def _name_the_fonts(draft: Path, target: Path) -> None:
    (draft / "fonts.conf").write_text(_FONTS.format(root=target))
