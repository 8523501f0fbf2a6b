"""uv, which installs the Python packages: found here, or a pinned wheel from the machine's package index.

It needs neither pip nor the venv module, both of which minimal Debian images lack. The wheel is checked against
the SHA-256 below. Standard library only: bootstrap.py uses this before any package is there.
"""

import hashlib
import io
import os
import platform
import shutil
import subprocess
import zipfile
from pathlib import Path

from clinic_local.errors import SetupError
from clinic_local.package_index import (
    CERTIFICATE_ADVICE,
    Indexes,
    address_of,
    fetch,
    is_about_certificates,
    redacted,
)

UV_VERSION = "0.13.9"
# (system, machine, libc) -> the end of the wheel's name, its SHA-256 on PyPI
_WHEELS = {
    ("Linux", "x86_64", "glibc"): (
        "manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
    ),
    ("Linux", "aarch64", "glibc"): (
        "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64.whl",
        "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe",
    ),
    ("Darwin", "arm64", ""): (
        "macosx_11_0_arm64.whl",
        "66c512266d633bef48384a1f53003f41f2a8e7b36fe6e7fbfd3e0fd52d96fa63",
    ),
    ("Darwin", "x86_64", ""): (
        "macosx_10_12_x86_64.whl",
        "c16ed11e013557536b3e60065f1b912f6407bd6518e041b961e23ef9e6b4fbf5",
    ),
}
# What PostgreSQL's wheel and others among the packages were built for.
_OLDEST_GLIBC = (2, 28)
_ELSEWHERE = "Run it in a container instead (deploy/compose), or on Debian 12, Ubuntu 24.04 or newer, on x86-64 or arm64."


def find_uv(indexes: Indexes, cache: Path) -> Path:
    """Return uv: from the cache, from PATH when its version will do, or freshly downloaded."""
    cached = cache / f"uv-{UV_VERSION}" / "uv"
    if cached.exists():
        return cached
    installed = shutil.which("uv")
    if installed and _is_suitable(Path(installed)):
        return Path(installed)
    return _install(indexes, cached)


def _is_suitable(uv: Path) -> bool:
    answer = subprocess.run([uv, "--version"], capture_output=True, text=True, check=False)
    words = answer.stdout.split()
    return len(words) > 1 and words[1].rpartition(".")[0] == UV_VERSION.rpartition(".")[0]


def _install(indexes: Indexes, target: Path) -> Path:
    suffix, digest = _wheel_for(platform.system(), platform.machine(), *platform.libc_ver())
    wheel = _download(indexes, f"uv-{UV_VERSION}-py3-none-{suffix}", digest)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f"uv.{os.getpid()}")
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        draft.write_bytes(archive.read(f"uv-{UV_VERSION}.data/scripts/uv"))
    draft.chmod(0o755)
    draft.rename(target)
    return target


def _wheel_for(system: str, machine: str, libc: str, libc_version: str) -> tuple[str, str]:
    if system == "Linux" and not _is_new_glibc(libc, libc_version):
        what = f"glibc {libc_version}" if libc == "glibc" else "another C library (musl, as in Alpine)"
        raise SetupError("bootstrap", f"glibc 2.28 or newer is needed, and this Linux has {what}", _ELSEWHERE)
    try:
        return _WHEELS[(system, machine, libc if system == "Linux" else "")]
    except KeyError:
        raise SetupError("bootstrap", f"{system} on {machine} isn't supported", _ELSEWHERE) from None


def _is_new_glibc(libc: str, version: str) -> bool:
    return libc == "glibc" and tuple(int(part) for part in version.split(".")[:2]) >= _OLDEST_GLIBC


def _download(indexes: Indexes, filename: str, digest: str) -> bytes:
    complaints, untrusted = [], False
    for place in [*indexes.find_links, *(f"{url.rstrip('/')}/uv/" for url in indexes.urls)]:
        try:
            address = address_of(place, filename)
            if address is None:
                complaints.append(f"{redacted(place)} doesn't have it")
                continue
            wheel = fetch(address)
        except (OSError, ValueError) as error:
            complaints.append(f"{redacted(place)}: {error}")
            untrusted |= is_about_certificates(error)
            continue
        if hashlib.sha256(wheel).hexdigest() == digest:
            return wheel
        complaints.append(f"{redacted(place)} gave a file whose SHA-256 is not the pinned one")
    raise SetupError(
        "bootstrap",
        f"uv {UV_VERSION} can't be had ({'; '.join(complaints) or 'no package index is configured'})",
        (f"{CERTIFICATE_ADVICE}\n" if untrusted else "")
        + "Check the network and proxy settings, or name your package index: export PIP_INDEX_URL=https://.../simple\n"
        f"or install uv {UV_VERSION} (https://docs.astral.sh/uv) so that it stands on PATH; then try again.",
    )
