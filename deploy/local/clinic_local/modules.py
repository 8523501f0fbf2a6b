"""Services are modules: all of the checkout run, but for those that the operator leaves out."""

from collections.abc import Mapping
from pathlib import Path

from clinic_shared import contracts

from clinic_local.errors import SetupError
from clinic_local.paths import run_dir
from clinic_local.state import read_env

# Nobody could sign in without the one, and no service would get rid of its audit records without the other.
ALWAYS = ("identity", "audit")
WITHOUT, ONLY = "CLINIC_WITHOUT", "CLINIC_SUBSCRIBED_SERVICES"


def chosen(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the services to run. Raises SetupError for a name that isn't one, or that can't be left out.

    `CLINIC_SUBSCRIBED_SERVICES` alone may name any selection: a single service is enough for its tests.
    """
    known = tuple(contracts.load().services)
    only, without = names(environ.get(ONLY, "")), names(environ.get(WITHOUT, ""))
    if unknown := [name for name in (*only, *without) if name not in known]:
        raise SetupError("modules", f"there is no service {unknown[0]}", f"There are: {', '.join(known)}")
    if needed := [name for name in without if name in ALWAYS]:
        raise SetupError(
            "modules",
            f"{needed[0]} can't be left out: everything else needs it",
            f"These can: {', '.join(name for name in known if name not in ALWAYS)}",
        )
    return tuple(name for name in known if (not only or name in only) and name not in without)


def names(listed: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(",") if name.strip())


def remember(root: Path, without: str) -> None:
    """Keep what was left out, for `clinic restart`."""
    _file(root).write_text(without, encoding="utf-8")


def remembered(root: Path) -> str:
    file = _file(root)
    return file.read_text(encoding="utf-8") if file.exists() else ""


def _file(root: Path) -> Path:
    folder = run_dir(root) / "state"
    folder.mkdir(exist_ok=True)
    return folder / "without"


def running_here(root: Path) -> tuple[str, ...]:
    """Return the services of the system that runs here, or ran here last."""
    here = read_env(root)
    return tuple(name for name in contracts.load().services if f"CLINIC_{_upper(name)}_URL" in here)


def _upper(name: str) -> str:
    return name.upper().replace("-", "_")
