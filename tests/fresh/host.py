"""What a fresh machine is given of this one: its way to package indexes, proxies and certificates, and nothing else."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from clinic_local.package_index import Indexes

_DEFAULT_MIRROR = "http://deb.debian.org/debian"
_CERTIFICATES = Path("/etc/ssl/certs/of-the-host.pem")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
_NAME_RESOLUTION = (Path("/etc/resolv.conf"), Path("/etc/hosts"))


@dataclass(frozen=True)
class Network:
    """How this machine gets packages."""

    mirror: str
    environment: dict[str, str]
    folders: list[Path] = field(default_factory=list)
    apt_settings: str = ""
    certificates: Path | None = None

    @classmethod
    def of_this_machine(cls) -> "Network":
        indexes = Indexes.of_this_machine()
        environment = {name: os.environ[name] for name in _PROXIES if name in os.environ}
        if not indexes.is_pypi:
            environment["PIP_INDEX_URL"] = indexes.main
        if indexes.no_index:
            environment["PIP_NO_INDEX"] = "1"
        if indexes.extra:
            environment["PIP_EXTRA_INDEX_URL"] = " ".join(indexes.extra)
        if indexes.find_links:
            environment["PIP_FIND_LINKS"] = " ".join(indexes.find_links)
        if indexes.certificates:
            environment["SSL_CERT_FILE"] = str(_CERTIFICATES)
        places = [indexes.main, *indexes.extra, *indexes.find_links]
        certificates = Path(indexes.certificates) if indexes.certificates else None
        return cls(_mirror(), environment, list(_local_folders(places)), _apt_settings(), certificates)

    def put_into(self, root: Path) -> None:
        """Write the files that a machine of this network has; no more than an administrator would."""
        for file in _NAME_RESOLUTION:
            if file.exists():
                shutil.copyfile(file, root / file.relative_to("/"))
        if self.certificates is not None:
            target = root / _CERTIFICATES.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.certificates, target)
        if self.apt_settings:
            (root / "etc/apt/apt.conf.d/90of-the-host").write_text(self.apt_settings)


def _mirror() -> str:
    """Return this machine's own mirror of Debian, if it is a Debian itself."""
    chosen = os.environ.get("FRESH_MIRROR")
    if chosen:
        return chosen
    command = ["apt-get", "indextargets", "--format", "$(SITE) $(ORIGIN)"]
    if shutil.which("apt-get") is None:
        return _DEFAULT_MIRROR
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    sites = [line.split()[0] for line in lines if line.endswith(" Debian")]
    return next((site for site in sites if not site.endswith("security")), _DEFAULT_MIRROR)


def _apt_settings() -> str:
    if shutil.which("apt-config") is None:
        return ""
    dump = subprocess.run(
        ["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=False
    ).stdout
    return "".join(f"{line}\n" for line in dump.splitlines() if re.match(r"Acquire::https?::Proxy", line))


def _local_folders(places: list[str]) -> Iterator[Path]:
    for place in places:
        folder = Path(place.removeprefix("file://"))
        if folder.is_absolute() and folder.is_dir():
            yield folder
