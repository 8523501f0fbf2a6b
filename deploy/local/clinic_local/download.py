"""RabbitMQ and Erlang from the distribution's own packages, unpacked into a private cache; nothing is installed.

apt runs with folders of its own and verifies every package against the distribution's signed lists.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from clinic_local.errors import SetupError

_PACKAGES = (
    "rabbitmq-server",
    *(
        f"erlang-{part}"
        for part in (
            *("base", "asn1", "crypto", "eldap", "inets", "mnesia", "os-mon", "parsetools"),
            *("public-key", "runtime-tools", "ssl", "syntax-tools", "tools", "xmerl"),
        )
    ),
)
_RECIPE = "1"
_APT_SECONDS = 180
ADVICE = (
    "Choose one:\n"
    "1. give a broker: export CLINIC_AMQP_URL=amqp://user:password@host:5672/%2F\n"
    "   and CLINIC_AMQP_MANAGEMENT_URL=http://user:password@host:15672\n"
    "2. install RabbitMQ 3.10 to 4.x, for instance: apt-get install rabbitmq-server\n"
    "3. run one in a container and give its URLs:\n"
    "   docker run -p 5672:5672 -p 15672:15672 rabbitmq:4-management"
)


def rabbitmq_root(cache: Path) -> Path:
    """Return a folder that holds `usr/lib/rabbitmq` and `usr/lib/erlang`, downloading it at the first call."""
    here = unpacked(cache)
    if here is not None:
        return here
    target = cache / f"rabbitmq-{_key()}"
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise SetupError("rabbitmq", "there is none here, and no apt to download it with", ADVICE)
    draft = cache / f"rabbitmq-{_key()}.{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    try:
        _download_and_unpack(draft, target)
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def unpacked(cache: Path) -> Path | None:
    """Return the folder if it was downloaded before."""
    target = cache / f"rabbitmq-{_key()}"
    return target if (target / "complete").exists() else None


def _key() -> str:
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    parts = (_RECIPE, release.get("ID", ""), release.get("VERSION_ID", ""), platform.machine(), *_PACKAGES)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _download_and_unpack(draft: Path, target: Path) -> None:
    apt, packages = draft / "apt", draft / "packages"
    for folder in (
        apt / "lists" / "partial",
        apt / "cache" / "archives" / "partial",
        apt / "state",
        packages,
    ):
        folder.mkdir(parents=True)
    options = _apt_options(apt)
    # One bad source among many makes `update` fail; what counts is whether the packages can be had.
    update = _apt([*options, "update"], packages)
    download = _apt([*options, "download", *_PACKAGES, *_missing_libraries(options)], packages)
    if download:
        raise SetupError("rabbitmq", f"its packages can't be downloaded: {update or download}", ADVICE)
    for package in sorted(packages.glob("*.deb")):
        _unpack(package, draft)
    names = sorted(package.name for package in packages.glob("*.deb"))
    for folder in (apt, packages):
        shutil.rmtree(folder)
    _set_erlang_root(draft, target)
    (draft / "complete").write_text("\n".join(names) + "\n")


def _apt_options(apt: Path) -> list[str]:
    settings = {
        "Dir::State": apt / "state",
        "Dir::State::Lists": apt / "lists",
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": apt / "cache",
        "Debug::NoLocking": "1",
        # apt as root would hand the download to the account _apt, which can't enter our folders.
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "20",
        "Acquire::https::Timeout": "20",
    }
    return [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]


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


def _unpack(package: Path, folder: Path) -> None:
    result = subprocess.run(["dpkg-deb", "-x", package, folder], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SetupError(
            "rabbitmq",
            f"{package.name} can't be unpacked: {result.stderr.strip()}",
            f"Check the free space of {folder.parent}",
        )


def _missing_libraries(options: list[str]) -> list[str]:
    """Return the libraries that apt would install besides: minimal images lack one or two that Erlang links."""
    simulated = subprocess.run(
        ["apt-get", "-qq", *options, "-s", "--no-install-recommends", "install", "rabbitmq-server"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_APT_SECONDS,
    )
    return re.findall(r"^Inst (lib\S+)", simulated.stdout, flags=re.MULTILINE)


def _set_erlang_root(draft: Path, target: Path) -> None:
    """Point Erlang's start scripts, which name /usr/lib/erlang, to where it will lie."""
    erlang = draft / "usr/lib/erlang"
    for script in (*erlang.glob("bin/*"), *erlang.glob("erts-*/bin/*")):
        if script.name in {"erl", "start"} and not script.is_symlink():
            text = re.sub(
                r'ROOTDIR="?/usr/lib/erlang"?', f"ROOTDIR={target}/usr/lib/erlang", script.read_text()
            )
            script.write_text(text)
