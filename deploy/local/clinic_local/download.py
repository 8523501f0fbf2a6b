"""Programs from the distribution's own packages, unpacked into a private cache; nothing is installed, nobody is root.

apt runs with folders of its own and verifies every package against the distribution's signed lists.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from clinic_local.errors import SetupError

_RECIPE = "2"
_APT_SECONDS = 180


def unpacked_packages(
    cache: Path,
    name: str,
    packages: Sequence[str],
    *,
    where_known: Sequence[str] = (),
    advice: str = "",
    finish: Callable[[Path, Path], None] | None = None,
) -> Path:
    """Return a folder with the files of `packages` and of the shared libraries that this machine lacks for them.

    The first call downloads it to `cache/<name>-<digest>`, later ones find it there. Programs in it are started
    with `LD_LIBRARY_PATH` of `library_path(root)`. Other packages that they need have to be named: most of what
    apt would install besides is of no use to a program that isn't installed.
    Those `where_known` are packages of their own in some releases only, and part of the others elsewhere.
    `finish(draft, target)` can change the files in `draft` before they are moved to `target` for good.

    Raises SetupError with `advice` when the packages can't be had here.
    """
    target = _target(cache, name, [*packages, *where_known])
    if (target / "complete").exists():
        return target
    advice = advice or f"Install them: apt-get install {' '.join(packages)}"
    if not is_possible():
        raise SetupError(name, "there is none here, and no apt to download it with", advice)
    draft = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        _download_and_unpack(draft, name, packages, where_known, advice)
        if finish is not None:
            finish(draft, target)
        _keep(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _keep(draft: Path, target: Path) -> None:
    try:
        draft.rename(target)
    except OSError:
        # Somebody else was faster. They may run what lies there, so it isn't replaced.
        if not (target / "complete").exists():
            raise


def already_unpacked(cache: Path, name: str, packages: Sequence[str]) -> Path | None:
    """Return the folder if it was downloaded before."""
    target = _target(cache, name, packages)
    return target if (target / "complete").exists() else None


def is_possible() -> bool:
    return shutil.which("apt-get") is not None and shutil.which("dpkg-deb") is not None


def library_path(root: Path) -> str:
    """Return the `LD_LIBRARY_PATH` of the programs below `root`."""
    folders = (*root.glob("usr/lib/*-linux-gnu*"), *root.glob("lib/*-linux-gnu*"))
    return ":".join(str(folder) for folder in folders)


def _target(cache: Path, name: str, packages: Sequence[str]) -> Path:
    """A release of the distribution has a folder of its own: the cache may be on a shared home."""
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    parts = (_RECIPE, release.get("ID", ""), release.get("VERSION_ID", ""), platform.machine(), *packages)
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
    return cache / f"{name}-{digest}"


def _download_and_unpack(
    draft: Path, name: str, packages: Sequence[str], where_known: Sequence[str], advice: str
) -> None:
    apt, archives = draft / "apt", draft / "packages"
    for folder in (
        apt / "lists/partial",
        apt / "cache/archives/partial",
        apt / "state",
        apt / "log",
        archives,
    ):
        folder.mkdir(parents=True)
    options = _apt_options(apt)
    # One bad source among many makes `update` fail; what counts is whether the packages can be had.
    update = _apt([*options, "update"], archives)
    known = [one for one in where_known if not _apt([*options, "download", "--print-uris", one], archives)]
    packages = [*packages, *known]
    wanted = [*packages, *_missing_libraries(options, packages)]
    download = _apt([*options, "download", *dict.fromkeys(wanted)], archives)
    if download:
        raise SetupError(name, f"its packages can't be downloaded: {update or download}", advice)
    files = sorted(archives.glob("*.deb"))
    for file in files:
        _unpack(file, draft, name)
    for folder in (apt, archives):
        shutil.rmtree(folder)
    (draft / "complete").write_text("".join(f"{file.name}\n" for file in files))


def _apt_options(apt: Path) -> list[str]:
    settings = {
        "Dir::State": apt / "state",
        "Dir::State::Lists": apt / "lists",
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": apt / "cache",
        "Dir::Log": apt / "log",
        "Debug::NoLocking": "1",
        # apt as root would hand the download to the account _apt, which can't enter our folders.
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "20",
        "Acquire::https::Timeout": "20",
    }
    lines = [f'{name} "{value}";\n' for name, value in settings.items()]
    # What this machine runs after its own updates, such as emptying its own cache, isn't ours to start.
    lines += [
        f"#clear {hooks};\n" for hooks in ("APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success")
    ]
    file = apt / "apt.conf"
    file.write_text("".join(lines))
    return ["-c", str(file)]


def _apt(arguments: list[str], folder: Path) -> str:
    """Run apt-get; return its last complaint, or nothing if it succeeded."""
    argv = ["apt-get", "-qq", *arguments]
    try:
        result = subprocess.run(
            argv, cwd=folder, capture_output=True, text=True, check=False, timeout=_APT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return "apt-get didn't answer in time"
    if result.returncode == 0:
        return ""
    return (result.stderr.strip().splitlines() or ["apt-get failed"])[-1]


def _unpack(package: Path, folder: Path, name: str) -> None:
    result = subprocess.run(["dpkg-deb", "-x", package, folder], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SetupError(
            name,
            f"{package.name} can't be unpacked: {result.stderr.strip()}",
            f"Check the free space of {folder.parent}",
        )


def _missing_libraries(options: list[str], packages: Sequence[str]) -> list[str]:
    """Return the shared libraries that apt would install besides: minimal images lack one or two."""
    simulated = subprocess.run(
        ["apt-get", "-qq", *options, "-s", "--no-install-recommends", "install", *packages],
        capture_output=True,
        text=True,
        check=False,
        timeout=_APT_SECONDS,
    )
    # A package named libjs-... holds scripts for browsers.
    return re.findall(r"^Inst (lib(?!js-)\S+)", simulated.stdout, flags=re.MULTILINE)
