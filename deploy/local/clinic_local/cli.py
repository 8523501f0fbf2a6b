"""`clinic`, the operator's command. Each `commands_<x>` module brings a typer app or plain functions."""

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType

import typer

from clinic_local.errors import SetupError

# module -> functions to add as commands of their own, or nothing: then the module's `app` is a group.
# Modules are imported here and not by name at the top, so that `clinic down` needn't load everything.
COMMANDS: dict[str, tuple[str, ...]] = {
    "commands_run": ("up", "down", "restart", "reset", "logs", "env"),
    "commands_status": ("status",),
    "commands_doctor": ("doctor",),
    "commands_seed": ("seed",),
    "commands_demo": ("demo",),
    "commands_ledger": ("ledger",),
    "commands_flow": ("flow",),
    "commands_trace": ("trace",),
    "commands_partitions": ("partitions",),
}
GROUPS: dict[str, str] = {
    "lab": "commands_lab",
    "dead-letters": "commands_dead_letters",
    "messages": "commands_messages",
    "events": "commands_events",
    "reporting": "commands_reporting",
    "topology": "commands_topology",
    "audit": "commands_audit",
    "policy": "commands_policy",
    "secrets": "commands_secrets",
    "keys": "commands_keys",
    "bootstrap": "commands_bootstrap",
    "config": "commands_config",
}


def build(wanted: str | None = None) -> typer.Typer:
    """Make the command line. `wanted` is the command about to run: modules of the others stay unloaded."""
    app = typer.Typer(
        name="clinic",
        help="Polyclinic on this machine.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    is_known = wanted in GROUPS or any(wanted in names for names in COMMANDS.values())
    for module, names in COMMANDS.items():
        if _exists(module) and (not is_known or wanted in names):
            for name in names:
                app.command(name)(getattr(_load(module), name))
    for name, module in GROUPS.items():
        if _exists(module) and (not is_known or wanted == name):
            app.add_typer(_load(module).app, name=name)

    @app.callback()
    def _group() -> None:
        """Keep subcommands even when only one is loaded."""

    return app


def _exists(module: str) -> bool:
    return find_spec(f"clinic_local.{module}") is not None


def _load(module: str) -> ModuleType:
    return importlib.import_module(f"clinic_local.{module}")


def main() -> None:
    """Run a command; a failure is one report and exit status 1, never a traceback."""
    try:
        build(next((word for word in sys.argv[1:] if not word.startswith("-")), None))()
    except SetupError as error:
        print(error.report(), file=sys.stderr)
        sys.exit(1)
    except PermissionError as error:
        # Most often: `make up` as root first, and then as oneself.
        print(
            f"clinic: {error.filename} belongs to another user; use that user or remove it", file=sys.stderr
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
