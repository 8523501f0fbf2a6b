"""Where local files lie: in the checkout, or in a state folder of the checkout's own where the checkout won't do.

It won't do on a file system that runs nothing (noexec), gives no file a mode of its own (all 0777: shared folders
of virtual machines, Windows' drives) or can't be written; `.venv` and `.run` are then links into the state folder.
Servers need more: who runs as another user must be able to enter the folder (a clone under /root), and RabbitMQ's
shell scripts break on spaces and letters beyond ASCII.
Standard library only: bootstrap.py uses this before any package is there.
"""

import contextlib
import hashlib
import os
import pwd
import re
import shutil
import stat
import tempfile
from pathlib import Path

from clinic_local.accounts import ServerUser, can_enter
from clinic_local.errors import SetupError

_SHELL_SAFE = re.compile(r"[A-Za-z0-9._/+@:-]+")
_NOEXEC = getattr(os, "ST_NOEXEC", 0)
CHECKOUT = Path(__file__).resolve().parents[3]


def home() -> Path | None:
    """Return our home folder if it is one that we can write to: a uid without a passwd entry often has none."""
    try:
        folder = Path(os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None
    return folder if folder.is_absolute() and _existing(folder) == folder and is_writable(folder) else None


def is_shell_safe(path: Path) -> bool:
    return _SHELL_SAFE.fullmatch(str(path)) is not None


def is_writable(folder: Path) -> bool:
    return os.access(_existing(folder), os.W_OK | os.X_OK)


def runs_programs(folder: Path) -> bool:
    return not os.statvfs(_existing(folder)).f_flag & _NOEXEC


def keeps_modes(folder: Path) -> bool:
    """Tell whether a file can be made private there, which secrets and PostgreSQL's data have to be."""
    with tempfile.NamedTemporaryFile(dir=_existing(folder), prefix=".polyclinic-") as probe:
        os.fchmod(probe.fileno(), 0o600)
        return stat.S_IMODE(os.fstat(probe.fileno()).st_mode) == 0o600  # noqa: PLR2004


def _existing(path: Path) -> Path:
    # Unlike Path.exists(), this takes a folder that we mustn't look into for one that isn't there.
    return next(place for place in (path, *path.parents) if os.path.exists(place))  # noqa: PTH110


def run_dir(root: Path) -> Path:
    """Return the folder of data, logs and secrets: `.run/`, or where it had to go."""
    folder = root / ".run"
    if folder.is_dir():
        return folder
    if not folder.is_symlink() and is_writable(root) and keeps_modes(root):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        return folder
    return _linked(folder, state_dir(root) / "run")


def venv_dir(root: Path) -> Path:
    """Return the folder of the Python packages: `.venv/`, or where it had to go."""
    folder = root / ".venv"
    if folder.is_symlink() and folder.is_dir():
        return folder.resolve()
    will_do = folder.is_dir() or (is_writable(root) and keeps_modes(root))
    if will_do and not folder.is_symlink() and runs_programs(root):
        return folder
    return _linked(folder, state_dir(root) / "venv")


def _linked(link: Path, target: Path) -> Path:
    """Return `target`, which people and make find under the name `link` where the file system has links."""
    target.mkdir(mode=0o755, exist_ok=True)
    with contextlib.suppress(OSError):
        link.symlink_to(target)
    return target


def private_dir(folder: Path) -> Path:
    """Create a folder that only we can read."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def write_private(path: Path, text: str) -> None:
    """Write a secret: readable by its owner only from the first byte on, whole or not at all."""
    private_dir(path.parent)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.rename(path)


def state_path(root: Path) -> Path:
    """Return where the checkout's folder outside the checkout lies, or would lie."""
    digest = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:12]
    places = [*(place / "polyclinic" / digest for place in _state_homes())]
    # The last resort, because many systems clean it up after a month.
    places.append(Path("/var/tmp") / f"polyclinic-{os.getuid()}-{digest}")  # noqa: S108 - see `state_dir`
    existing = (place for place in places if place.is_dir())
    return next(existing, None) or next((place for place in places if _may_hold_state(place)), places[-1])


def _state_homes() -> list[Path]:
    chosen, own = os.environ.get("XDG_STATE_HOME"), home()
    if chosen and Path(chosen).is_absolute():
        return [Path(chosen)]
    return [*([own / ".local/state"] if own else []), *([Path("/var/lib")] if os.getuid() == 0 else [])]


def _may_hold_state(place: Path) -> bool:
    parent = _existing(place)
    return (
        is_shell_safe(place)
        and is_writable(parent)
        and runs_programs(parent)
        and keeps_modes(parent)
        # As root, PostgreSQL runs as somebody else, who has to get there.
        and (
            os.getuid() != 0
            or all(folder.stat().st_mode & stat.S_IXOTH for folder in (parent, *parent.parents))
        )
    )


def state_dir(root: Path) -> Path:
    """Return the checkout's folder outside the checkout, made by us and by nobody else.

    Its name can be guessed and /var/tmp is open to all, so a folder that someone else put there is refused.
    """
    folder = state_path(root)
    if not folder.parent.is_dir():
        folder.parent.mkdir(parents=True)
        folder.parent.chmod(0o755)
    if not folder.exists():
        folder.mkdir()
        folder.chmod(0o711)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & stat.S_IWOTH:
        raise SetupError("files", f"{folder} belongs to someone else", f"Remove {folder} and try again.")
    return folder


def local_data(root: Path) -> list[Path]:
    """Return what `make reset` removes: everything that was written for this checkout but the packages."""
    state = state_path(root)
    moved = [] if not state.is_dir() else [entry for entry in state.iterdir() if entry.name != "venv"]
    own = root / ".run"
    return [*([own] if own.is_dir() or own.is_symlink() else []), *moved]


def remove_local_data(root: Path) -> None:
    for folder in local_data(root):
        if folder.is_symlink():
            folder.unlink()
        else:
            shutil.rmtree(folder)
    with contextlib.suppress(OSError):
        state_path(root).rmdir()


def server_dir(root: Path, preferred: Path, user: ServerUser | None, *, shell_safe: bool = False) -> Path:
    """Return `preferred` when the server can live there, else its twin in the state folder."""
    if can_enter(preferred.parent, user) and (not shell_safe or is_shell_safe(preferred)):
        return preferred
    return state_dir(root) / preferred.relative_to(run_dir(root))


def cache_dir(root: Path) -> Path:
    """Return the folder for downloads; several checkouts share it unless it can't be where caches are."""
    chosen, own = os.environ.get("XDG_CACHE_HOME"), home()
    shared = Path(chosen) if chosen else own / ".cache" if own else None
    places = [*([shared / "polyclinic"] if shared else []), run_dir(root) / "cache"]
    suitable = (p for p in places if is_shell_safe(p) and is_writable(p) and runs_programs(p))
    folder = next(suitable, None) or state_dir(root) / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
