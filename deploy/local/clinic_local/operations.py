"""What the operator's commands share: somebody who may ask, whole lists, and how answers are printed.

Tables in columns, or JSON with `--json`. A service that didn't answer is
always named: a part must not be taken for the whole.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import httpx
import typer
from rich.align import AlignMethod
from rich.console import Console
from rich.text import Text

from clinic_local.api_client import ApiError, Caller
from clinic_local.environment import ADMIN_LOGIN, ADMIN_PASSWORD
from clinic_local.errors import SetupError
from clinic_local.paths import run_dir
from clinic_local.state import clinic_url, read_env, root

AsJson = Annotated[bool, typer.Option("--json", help="for programs")]

LARGEST_PAGE = 200
_UNAUTHENTICATED = 401


@contextmanager
def operator() -> Iterator[Caller]:
    """Call the deployment's API as its administrator. Raises SetupError for every way in which that fails."""
    url = clinic_url()
    try:
        with Caller(url, *_credentials(url)) as caller:
            yield caller
    except ApiError as error:
        advice = "Look at CLINIC_LOGIN and CLINIC_PASSWORD." if error.status == _UNAUTHENTICATED else ""
        raise SetupError("clinic", printable(str(error)), advice) from error
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise SetupError("clinic", f"{url} can't be reached", "Look at: make status") from error
    except json.JSONDecodeError as error:
        raise SetupError("clinic", f"{url} doesn't answer as the gateway does") from error


def _credentials(url: str) -> tuple[str, str]:
    login, password = os.environ.get("CLINIC_LOGIN"), os.environ.get("CLINIC_PASSWORD")
    if login:
        return login, password or _ask_password(login)
    # Only for the system that runs here: another one must not be told this one's password.
    if url == read_env(root()).get("CLINIC_URL"):
        try:
            return ADMIN_LOGIN, (run_dir(root()) / "secrets" / ADMIN_PASSWORD).read_text()
        except FileNotFoundError:
            pass
    raise SetupError("clinic", f"no login for {url}", "Set CLINIC_LOGIN and CLINIC_PASSWORD.")


def _ask_password(login: str) -> str:
    if not sys.stdin.isatty():
        raise SetupError("clinic", f"no password for {login}", "Set CLINIC_PASSWORD.")
    return str(typer.prompt(f"Password of {login}", hide_input=True, err=True))


def ask_all(caller: Caller, page: str, *, whole: bool = True, **parameters: Any) -> dict[str, Any]:
    """Return what all services answer at `/v1/ops/{page}`; with `whole` every list to its end.

    Raises SetupError when no service answered.
    """
    path = f"/v1/ops/{page}"
    merged: dict[str, Any] = caller.get(path, **parameters)
    if not merged["services"]:
        reasons = ", ".join(f"{part['service']} {part['reason']}" for part in merged["unreachable"])
        raise SetupError("clinic", f"no service answered: {reasons}", "Look at: make status")
    for service in _longer(merged) if whole else ():
        others = [item for item in merged["items"] if item["service"] != service]
        merged["items"] = others + items_of(caller, page, service, **parameters)
    return merged


def _longer(merged: dict[str, Any]) -> list[str]:
    return [service for service, part in merged["services"].items() if part.get("next_cursor")]


def is_cut(merged: dict[str, Any]) -> bool:
    """Tell whether a service has more than the page that it was asked for."""
    return bool(_longer(merged))


def items_of(caller: Caller, page: str, service: str, **parameters: Any) -> list[dict[str, Any]]:
    """Return one service's whole list, each member with the service's name."""
    found = caller.items(f"/v1/ops/{page}/{service}", **{**parameters, "limit": LARGEST_PAGE})
    return [{"service": service} | item for item in found]


def warn_of_unreachable(merged: dict[str, Any]) -> None:
    for part in merged["unreachable"]:
        print(f"{part['service']} didn't answer ({part['reason']}): its part is missing", file=sys.stderr)


def print_json(document: object) -> None:
    print(json.dumps(document, indent=1, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows below their columns' names; numbers to the right, None as a dash.

    Lines are as long as they are: an id that was broken to fit can't be copied.
    """
    values = [list(row) for row in rows]
    lines = [
        [Text(column, "bold") for column in columns],
        *([_cell(value) for value in row] for row in values),
    ]
    console = Console(highlight=False)
    alignments: list[tuple[AlignMethod, int]] = [
        (
            "right" if {type(row[n]) for row in values} - {type(None)} == {int} else "left",
            max(line[n].cell_len for line in lines),
        )
        for n in range(len(columns))
    ]
    for line in lines:
        for cell, (alignment, width) in zip(line, alignments, strict=True):
            cell.align(alignment, width)
        whole = Text("  ").join(line)
        whole.rstrip()
        console.print(whole, soft_wrap=True)


def _cell(value: object) -> Text:
    if isinstance(value, Text):
        return value
    return Text("-" if value is None else printable(str(value)))


def printable(text: str) -> str:
    """Types, causes and reasons come from outside: none of them may steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def moment(value: str | None, *, milliseconds: bool = False) -> str | None:
    """Return an instant of the API (RFC 3339, UTC) as a column shows it."""
    if value is None:
        return None
    date, _, clock = value.rstrip("Z").partition("T")
    return f"{date} {clock[: 12 if milliseconds else 8]}"
