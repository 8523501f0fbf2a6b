"""`clinic dead-letters`: messages that could not take effect. Seen, handled again, or let be for a reason.

An id belongs to a service: each keeps its own held, parked and discarded messages.
"""

import time
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer

from clinic_local.api_client import ApiError, Caller
from clinic_local.errors import SetupError
from clinic_local.operations import (
    LARGEST_PAGE,
    AsJson,
    ask_all,
    is_cut,
    items_of,
    moment,
    operator,
    plural,
    print_json,
    print_table,
    warn_of_unreachable,
)

app = typer.Typer(help="Messages that could not take effect: show, redrive, discard.", no_args_is_help=True)

PAGE = "dead-letters"
_NOT_FOUND = 404
_POLL_SECONDS = 0.2

ServiceName = Annotated[str, typer.Argument(metavar="SERVICE", help="who could not handle it")]


class State(StrEnum):
    HELD = "held"
    PARKED = "parked"
    DISCARDED = "discarded"


@app.command("ls")
def list_letters(
    service: Annotated[str | None, typer.Option(help="of one service")] = None,
    state: Annotated[State | None, typer.Option(help="in one state")] = None,
    cause: Annotated[str | None, typer.Option(help="of one cause")] = None,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="all rows, not the oldest of each service")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=LARGEST_PAGE, help="rows of each service")] = 50,
    as_json: AsJson = False,
) -> None:
    """List held, parked and discarded messages: what waits by cause, then row by row."""
    parameters = {name: value for name, value in (("state", state), ("cause", cause)) if value is not None}
    with operator() as caller:
        found = _fetch(caller, service, everything=everything, limit=limit, **parameters)
    found["groups"] = [
        group
        for group in found.get("groups", [])
        if (state is None or group["state"] == state) and (cause is None or group["cause"] == cause)
    ]
    if as_json:
        shown = ("groups", "items", "unreachable")
        print_json({name: found.get(name, []) for name in shown} | {"is_cut": found["is_cut"]})
        return
    _show_list(found)
    warn_of_unreachable(found)


def _fetch(caller: Caller, service: str | None, *, everything: bool, **parameters: Any) -> dict[str, Any]:
    if service is None:
        merged = ask_all(caller, PAGE, whole=everything, **parameters)
        return merged | {"is_cut": not everything and is_cut(merged)}
    own: dict[str, Any] = caller.get(_path(service), **parameters)
    items = [{"service": service} | item for item in own["items"]]
    if everything and own["next_cursor"]:
        items = items_of(caller, PAGE, quote(service, safe=""), **parameters)
    return {
        "groups": [{"service": service} | group for group in own["groups"]],
        "items": items,
        "is_cut": not everything and own["next_cursor"] is not None,
        "unreachable": [],
    }


def _show_list(found: dict[str, Any]) -> None:
    if not found["groups"] and not found.get("items"):
        print("None.")
        return
    if found["groups"]:
        print_table(
            ("count", "service", "state", "cause", "oldest (UTC)", "event", "error"),
            (
                (
                    g["count"],
                    g["service"],
                    g["state"],
                    g["cause"],
                    moment(g["oldest_at"]),
                    g["type"],
                    g["error"],
                )
                for g in sorted(found["groups"], key=lambda group: -group["count"])
            ),
        )
        print()
    print_table(
        (
            "service",
            "id",
            "state",
            "cause",
            "tries",
            "first failed (UTC)",
            "next try (UTC)",
            "event",
            "event id",
        ),
        (
            (
                row["service"],
                row["id"],
                row["state"],
                row["cause"],
                row["attempt"],
                moment(row["first_failed_at"]),
                moment(row["next_attempt_at"]),
                row["type"],
                row["event_id"],
            )
            for row in found.get("items", [])
        ),
    )
    if found["is_cut"]:
        print("There are more: --all shows them, --service, --state and --cause choose.")


@app.command()
def show(
    service: ServiceName, letter_id: Annotated[int, typer.Argument(metavar="ID")], *, as_json: AsJson = False
) -> None:
    """Show a message: what it is, why it failed, what was decided. Its content stays where it is."""
    with operator() as caller:
        letter = caller.get(_path(service, letter_id))
    if as_json:
        print_json({"service": service} | letter)
        return
    times = {name for name in letter if name.endswith("_at")}
    print_table(
        ("service", service),
        (
            (name.replace("_", " "), moment(value) if name in times else value)
            for name, value in letter.items()
        ),
    )


@app.command()
def redrive(
    service: ServiceName,
    letter_ids: Annotated[list[int] | None, typer.Argument(metavar="ID")] = None,
    *,
    cause: Annotated[str | None, typer.Option(help="all parked messages of this cause")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say whether it would succeed")] = False,
    wait_seconds: Annotated[
        float, typer.Option("--wait", min=0, help="seconds to wait for the effect of given ids")
    ] = 5,
    as_json: AsJson = False,
) -> None:
    """Let messages be handled again, with their origin unchanged, in order per key.

    Exit status 1 when one of the given ids failed again, or would.
    """
    ids = list(dict.fromkeys(letter_ids or ()))
    if bool(ids) == (cause is not None):
        raise typer.BadParameter("name ids or a cause", param_hint="ID... | --cause")
    with operator() as caller:
        if dry_run:
            outcomes = _rehearse(caller, service, ids or _ids_of(caller, service, str(cause)))
        elif ids:
            outcomes = _redrive(caller, service, ids, wait_seconds)
        else:
            decided = caller.post(_path(service, "redrive"), {"cause": cause})
            _report_count(decided, as_json=as_json)
            return
    if as_json:
        print_json({"service": service, "items": outcomes})
    else:
        print_table(("id", "outcome", "error"), ((o["id"], o["outcome"], o["error"]) for o in outcomes))
    if any(outcome["outcome"] in _FAILED for outcome in outcomes):
        raise typer.Exit(1)


_FAILED = frozenset(("unknown", "would fail", "failed again"))


def _report_count(decided: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        print_json(decided)
    else:
        print(f"{plural(decided['count'], 'message')} to be handled again. See: clinic dead-letters ls")


def _ids_of(caller: Caller, service: str, cause: str) -> list[int]:
    parked = items_of(caller, PAGE, quote(service, safe=""), cause=cause, state=State.PARKED)
    return [row["id"] for row in parked]


def _rehearse(caller: Caller, service: str, ids: list[int]) -> list[dict[str, Any]]:
    outcomes = []
    for letter_id in ids:
        answer = caller.post(_path(service, letter_id, "dry-run"))
        outcome = "would succeed" if answer["would_succeed"] else "would fail"
        outcomes.append(_outcome(letter_id, outcome, answer["error"]))
    return outcomes


def _redrive(caller: Caller, service: str, ids: list[int], wait_seconds: float) -> list[dict[str, Any]]:
    # Asked for before it is decided: one that has taken effect is gone, just as one that never was.
    known = [letter_id for letter_id in ids if _find(caller, service, letter_id) is not None]
    if known:
        caller.post(_path(service, "redrive"), {"ids": known})
    deadline = time.monotonic() + wait_seconds
    return [
        _settled(caller, service, letter_id, deadline)
        if letter_id in known
        else _outcome(letter_id, "unknown", f"{service} has no such message")
        for letter_id in ids
    ]


def _settled(caller: Caller, service: str, letter_id: int, deadline: float) -> dict[str, Any]:
    """Wait for what becomes of a message that goes again; it is gone once it took effect."""
    while True:
        letter = _find(caller, service, letter_id)
        if letter is None:
            return _outcome(letter_id, "took effect", None)
        if letter["attempt"]:
            return _outcome(letter_id, "failed again", letter["error"])
        if time.monotonic() > deadline:
            return _outcome(letter_id, "goes again", None)
        time.sleep(_POLL_SECONDS)


def _outcome(letter_id: int, outcome: str, error: str | None) -> dict[str, Any]:
    return {"id": letter_id, "outcome": outcome, "error": error}


def _find(caller: Caller, service: str, letter_id: int) -> dict[str, Any] | None:
    try:
        letter: dict[str, Any] = caller.get(_path(service, letter_id))
    except ApiError as error:
        if error.status != _NOT_FOUND or error.slug != "not-found":
            raise
        return None
    return letter


@app.command()
def discard(
    service: ServiceName,
    letter_id: Annotated[int, typer.Argument(metavar="ID")],
    *,
    reason: Annotated[str, typer.Option(help="why it need not take effect; kept, and shown")],
    as_json: AsJson = False,
) -> None:
    """Let a message be, for a reason. It stays visible and can still be redriven."""
    with operator() as caller:
        decided = caller.post(_path(service, letter_id, "discard"), {"reason": reason})
    if not decided["count"]:
        raise SetupError("dead-letters", f"message {letter_id} of {service} was discarded before")
    if as_json:
        print_json(decided)
    else:
        print(f"Message {letter_id} of {service} is discarded.")


def _path(service: str, *rest: object) -> str:
    return "/".join((f"/v1/ops/{PAGE}", quote(service, safe=""), *map(str, rest)))
