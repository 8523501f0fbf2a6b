"""A name for a user without a passwd entry, as containers often run things: initdb insists on looking it up.

The library nss_wrapper, from the distribution's packages, answers it from a file of ours.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from clinic_local import download
from clinic_local.accounts import has_name

_ADVICE = (
    "Choose one:\n"
    "1. give the user a name: a line in /etc/passwd, for instance clinic:x:{uid}:{gid}::/tmp:/bin/sh\n"
    "2. install the library that can do without: apt-get install libnss-wrapper\n"
    "3. give a server that runs elsewhere: export CLINIC_POSTGRES_URL=postgresql://admin:password@host:5432/postgres"
)
_SYSTEM_ROOT = Path("/")


def environment(cache: Path, folder: Path) -> dict[str, str]:
    """Return the variables that give us a name, with their files in `folder`; none if we have one.

    Raises SetupError if we have none and the library can't be had.
    """
    uid, gid = os.getuid(), os.getgid()
    if has_name(uid):
        return {}
    library = next(_libraries(_SYSTEM_ROOT), None)
    if library is None:
        advice = _ADVICE.format(uid=uid, gid=gid)
        unpacked = download.unpacked_packages(cache, "nss-wrapper", ("libnss-wrapper",), advice=advice)
        library = next(_libraries(unpacked))
    passwd, group = folder / "passwd", folder / "group"
    passwd.write_text(f"clinic:x:{uid}:{gid}:clinic:{folder}:/bin/sh\n")
    group.write_text(f"clinic:x:{gid}:\n")
    return {
        "LD_PRELOAD": str(library),
        "NSS_WRAPPER_PASSWD": str(passwd),
        "NSS_WRAPPER_GROUP": str(group),
    }


def _libraries(root: Path) -> Iterator[Path]:
    for pattern in ("usr/lib/*-linux-gnu*", "usr/lib64", "usr/lib"):
        yield from root.glob(f"{pattern}/libnss_wrapper.so")
