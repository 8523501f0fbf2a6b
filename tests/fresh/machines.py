"""Minimal Debian roots, made by debootstrap, and commands in them: own processes, own mounts, a cleared environment."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clinic_local.download import unpacked_packages
from clinic_local.errors import SetupError
from clinic_local.paths import CHECKOUT, cache_dir

from fresh.host import Network

# What the README says is needed; git for the clone.
_NEEDED = "python3,make,git,ca-certificates"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
# Runs in a mount and a process namespace of its own, so nothing outlives it and nothing has to be unmounted.
_ENTER = """
set -eu
root=$1 user=$2; shift 2
# buildah changes how / is mounted, so it has to be a mount.
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --bind /sys "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for name in {devices}; do touch "$root/dev/$name"; mount --bind "/dev/$name" "$root/dev/$name"; done
mkdir "$root/dev/shm"; mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s /proc/self/fd "$root/dev/fd"
{binds}
exec chroot --userspec="$user" "$root" /usr/bin/env -i "$@"
"""


@dataclass(frozen=True)
class User:
    """Who runs something; `folder` takes the clone."""

    uid: int
    home: str
    folder: str
    account: str | None = None


ROOT = User(0, "/root", "/root")
ORDINARY = User(1000, "/home/clinic", "/home/clinic", account="clinic")
# As `docker run --user 12345` does it: no passwd entry, and a home that can't be written.
NAMELESS = User(12345, "/", "/srv/somewhere")


@dataclass(frozen=True)
class Machine:
    """One root of a Debian release, to be thrown away."""

    root: Path
    network: Network

    def add(self, user: User) -> None:
        """Make the user's account, if it is to have one, and a fresh clone of the last commit in its folder."""
        if user.account is not None:
            self.run(ROOT, f"useradd --uid {user.uid} --create-home {user.account}", log=None)
        clone = self.root / user.folder.lstrip("/") / "polyclinic"
        clone.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", CHECKOUT, clone], check=True)
        for folder, _, files in os.walk(clone.parent):
            for name in (".", *files):
                os.chown(Path(folder, name), user.uid, user.uid, follow_symlinks=False)

    def run(
        self, user: User, script: str, *, log: Path | None, environment: Mapping[str, str] | None = None
    ) -> int:
        """Run a shell script as this user; return its exit status."""
        folders = [*self.network.folders]
        corpus = os.environ.get("CLINIC_CORPUS")
        if corpus:
            folders.append(Path(corpus))
        for folder in folders:
            (self.root / folder.relative_to("/")).mkdir(parents=True, exist_ok=True)
        binds = "\n".join(f'mount --bind -o ro "{folder}" "$root{folder}"' for folder in folders)
        variables = {
            "HOME": user.home,
            "CLONE": f"{user.folder}/polyclinic",
            "PATH": _PATH,
            **self.network.environment,
            **({"CLINIC_CORPUS": corpus} if corpus else {}),
            **(environment or {}),
        }
        enter = _ENTER.format(devices=" ".join(_DEVICES), binds=binds)
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", enter, "enter"]
        command += [str(self.root), f"{user.uid}:{user.uid}", *(f"{k}={v}" for k, v in variables.items())]
        with Path(os.devnull if log is None else log).open("ab") as output:
            return subprocess.run(
                [*command, "sh", "-euc", script],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
            ).returncode


def base(suite: str, folder: Path, network: Network, log: Path) -> Path:
    """Return a root with Debian's smallest set of packages and what the README asks for; kept for the next run."""
    target = folder / f"base-{suite}"
    if target.exists():
        return target
    debootstrap = _debootstrap()
    draft = folder / f"base-{suite}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    keyring = debootstrap / "usr/share/keyrings/debian-archive-keyring.gpg"
    script = debootstrap / "usr/sbin/debootstrap"
    options = ["--variant=minbase", f"--include={_NEEDED}", f"--keyring={keyring}"]
    with log.open("ab") as output:
        result = subprocess.run(
            ["sh", script, *options, suite, draft, network.mirror],
            env={**os.environ, "DEBOOTSTRAP_DIR": str(debootstrap / "usr/share/debootstrap")},
            stdout=output,
            stderr=output,
            check=False,
        )
    if result.returncode != 0:
        raise SetupError("debootstrap", f"{suite} can't be installed from {network.mirror}", log=log)
    draft.rename(target)
    return target


def _debootstrap() -> Path:
    installed = Path("/usr/share/debootstrap/scripts")
    if installed.exists() and Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists():
        return Path("/")
    return unpacked_packages(cache_dir(CHECKOUT), "debootstrap", ("debootstrap", "debian-archive-keyring"))


def new_machine(base_: Path, target: Path, network: Network) -> Machine:
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "--archive", "--reflink=auto", base_, target], check=True)
    network.put_into(target)
    return Machine(target, network)
