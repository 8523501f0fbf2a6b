"""`clinic config`: would a service start with the settings that are here, and as what?"""

import difflib
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from clinic_shared import contracts
from clinic_shared.encryption.key_store import find_keys
from clinic_shared.service import Service
from clinic_shared.settings import ENVIRONMENT_NAMES, ServiceSettings
from pydantic import ValidationError
from rich.text import Text

from clinic_local.errors import SetupError
from clinic_local.operations import AsJson, print_json, print_table

app = typer.Typer(help="Settings of services.", no_args_is_help=True)

_SECRETS_DIR = "CLINIC_SECRETS_DIR"
_PREFIX = "CLINIC_"
# Read by the gateway, the supervisor or the commands, not by a service's settings.
_OTHERS = {
    "CLINIC_SECRETS_DIR",
    "CLINIC_UPSTREAMS",
    "CLINIC_URL",
    "CLINIC_ROOT",
    "CLINIC_ROLES",
    "CLINIC_CORPUS",
}

Names = Annotated[list[str] | None, typer.Argument(help="services; all by default")]
SecretsFolder = Annotated[
    Path | None,
    typer.Option("--secrets", help="folder of `clinic secrets init`, instead of CLINIC_SECRETS_DIR"),
]


@dataclass(frozen=True)
class Finding:
    service: str
    setting: str
    problem: str


@app.callback()
def _group() -> None:
    """Keep the subcommand's name although it is the only one."""


@app.command()
def check(
    services: Names = None,
    *,
    secrets: SecretsFolder = None,
    show: Annotated[bool, typer.Option(help="print the settings in effect, secrets as asterisks")] = False,
    as_json: AsJson = False,
) -> None:
    """Read settings as the services would, from this environment, and name what would stop them.

    Exit status: 0 all can start, 1 one can't.
    """
    findings: list[Finding] = []
    effective: dict[str, dict[str, object]] = {}
    for name in services or list(contracts.load().services):
        with _secrets_of(name, secrets):
            problems, settings = _read(_service(name))
        findings += [Finding(name, *problem) for problem in problems]
        if not problems and settings is not None:
            effective[name] = settings.redacted()
    unknown = _unknown_variables()
    if as_json:
        print_json(
            {"findings": [vars(finding) for finding in findings], "unknown": unknown, "effective": effective}
        )
    else:
        _print(findings, unknown, effective, show=show)
    if findings:
        raise typer.Exit(1)


def _print(
    findings: list[Finding], unknown: dict[str, str], effective: dict[str, dict[str, object]], *, show: bool
) -> None:
    if show:
        for name, settings in effective.items():
            print(name)
            print_table(("setting", "value"), ((f"  {key}", value) for key, value in settings.items()))
    if findings:
        rows = ((found.service, Text(found.setting, "red"), found.problem) for found in findings)
        print_table(("service", "setting", "problem"), rows)
    for variable, nearest in unknown.items():
        print(f"{variable} is read by nobody" + (f"; {nearest}?" if nearest else ""))
    if effective:
        print(f"can start: {', '.join(effective)}")


def _service(name: str) -> Service:
    known = contracts.load().services
    if name not in known:
        raise SetupError("config", f"there is no service {name}", f"Services: {', '.join(known)}")
    service: Service = importlib.import_module(f"{known[name].package}.app").service
    return service


@contextmanager
def _secrets_of(service: str, folder: Path | None) -> Iterator[None]:
    """Let settings find a service's secrets where `clinic secrets init` put them."""
    if folder is None:
        yield
        return
    before = os.environ.get(_SECRETS_DIR)
    os.environ[_SECRETS_DIR] = str(folder / service)
    try:
        yield
    finally:
        os.environ.pop(_SECRETS_DIR)
        if before is not None:
            os.environ[_SECRETS_DIR] = before


def _read(service: Service) -> tuple[list[tuple[str, str]], ServiceSettings | None]:
    try:
        settings = service.settings.load()
        # Elsewhere a missing key is made at the first start; looking must not make one.
        if settings.environment == "production":
            find_keys(settings)
            if service.key_files is not None:
                service.key_files(settings)
    except ValidationError as error:
        return list(_problems(error)), None
    except (RuntimeError, ValueError, OSError) as error:
        return [(_SECRETS_DIR, str(error))], None
    return [*_doubts(service, settings)], settings


def _doubts(service: Service, settings: ServiceSettings) -> Iterator[tuple[str, str]]:
    if settings.environment == "production" and service.name != "identity" and not settings.jwks_url:
        yield "CLINIC_JWKS_URL", "not set: every access token would be refused"


def _problems(error: ValidationError) -> Iterator[tuple[str, str]]:
    # `input` holds the value, a password perhaps: it is never shown.
    for problem in error.errors(include_input=False, include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        yield (
            (name if name.startswith(_PREFIX) else f"{_PREFIX}{name.upper()}" if name else "-"),
            problem["msg"].removeprefix("Value error, "),
        )


def _unknown_variables() -> dict[str, str]:
    """Return variables that look like settings but aren't, each with the one that was perhaps meant."""
    known = {str(choice) for choice in ENVIRONMENT_NAMES.choices} | _OTHERS
    for name in contracts.load().services:
        known |= {f"{_PREFIX}{field.upper()}" for field in _service(name).settings.model_fields}
    strangers = sorted(name for name in os.environ if name.startswith(_PREFIX) and name not in known)
    return {name: next(iter(difflib.get_close_matches(name, known, 1)), "") for name in strangers}
