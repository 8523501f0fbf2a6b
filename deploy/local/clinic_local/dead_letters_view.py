"""`clinic dead-letters ls|show|reveal|dry-run`: looking, without changing anything."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer

from clinic_local.api_client import ApiError, Caller
from clinic_local.dead_letters_shared import (
    PAGE,
    LetterId,
    LetterIds,
    OfCause,
    ServiceName,
    chosen,
    path_of,
    refusals_in_words,
)
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

app = typer.Typer()

LISTS = ("groups", "items", "runs", "decisions")
EVENTS_ASKED = 50


class State(StrEnum):
    HELD = "held"
    PARKED = "parked"
    DISCARDED = "discarded"
    SUPERSEDED = "superseded"


@app.command("ls")
def list_letters(
    service: Annotated[str | None, typer.Option(help="of one service")] = None,
    state: Annotated[State | None, typer.Option(help="in one state")] = None,
    cause: Annotated[str | None, typer.Option(help="of one cause")] = None,
    event_type: Annotated[str | None, typer.Option("--type", help="of one event type")] = None,
    queue: Annotated[str | None, typer.Option(help="from one queue")] = None,
    key: Annotated[str | None, typer.Option(help="of one partition key (a patient's id, mostly)")] = None,
    since: Annotated[datetime | None, typer.Option(help="last failed at or after (UTC)")] = None,
    until: Annotated[datetime | None, typer.Option(help="last failed before (UTC)")] = None,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="all rows, not the oldest of each service")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=LARGEST_PAGE, help="rows of each service")] = 50,
    as_json: AsJson = False,
) -> None:
    """List what could not take effect: by cause, then row by row; runs and open decisions below."""
    wanted = {
        "state": state,
        "cause": cause,
        "type": event_type,
        "queue": queue,
        "key": key,
        "since": _utc(since),
        "until": _utc(until),
    }
    parameters = {name: value for name, value in wanted.items() if value is not None}
    with operator() as caller:
        found = _fetch(caller, service, everything=everything, limit=limit, **parameters)
    if as_json:
        shown = {name: found.get(name, []) for name in (*LISTS, "unreachable")}
        print_json(shown | {"is_cut": found["is_cut"]})
        return
    _show_list(found)
    warn_of_unreachable(found)


def _utc(value: datetime | None) -> str | None:
    return None if value is None else f"{value.isoformat()}Z"


def _fetch(caller: Caller, service: str | None, *, everything: bool, **parameters: Any) -> dict[str, Any]:
    if service is None:
        merged = ask_all(caller, PAGE, whole=everything, **parameters)
        return merged | {"is_cut": not everything and is_cut(merged)}
    own: dict[str, Any] = caller.get(path_of(service), **parameters)
    found: dict[str, Any] = {name: [{"service": service} | member for member in own[name]] for name in LISTS}
    if everything and own["next_cursor"]:
        found["items"] = items_of(caller, PAGE, quote(service, safe=""), **parameters)
    return found | {"is_cut": not everything and own["next_cursor"] is not None, "unreachable": []}


def _show_list(found: dict[str, Any]) -> None:
    going = [run for run in found.get("runs", []) if run["state"] == "running"]
    if not any(found.get(name) for name in ("groups", "items", "decisions")) and not going:
        print("None.")
        return
    if found.get("groups"):
        _show_groups(found["groups"])
        print()
    if found.get("items"):
        _show_rows(found["items"])
    if found["is_cut"]:
        print("There are more: --all shows them, --service, --state and --cause choose.")
    for run in going:
        done = run["total"] - run["waiting"]
        print(f"Run {run['run_id']} of {run['service']} goes on: {done} of {run['total']} handled.")
    for decision in found.get("decisions", []):
        print(
            f"{plural(decision['count'], 'message')} of {decision['service']} to be discarded, if a second "
            f"person agrees: clinic dead-letters approve {decision['service']} {decision['decision_id']}"
        )


def _show_groups(groups: list[dict[str, Any]]) -> None:
    print_table(
        ("count", "service", "state", "cause", "first (UTC)", "last (UTC)", "example", "event", "error"),
        (
            (
                group["count"],
                group["service"],
                _states(group),
                group["cause"],
                moment(group["first_seen_at"]),
                moment(group["last_seen_at"]),
                group["example_id"],
                group["type"],
                group["error"],
            )
            for group in sorted(groups, key=lambda group: -group["count"])
        ),
    )


def _states(group: dict[str, Any]) -> str:
    """Return the one state of a group, or how many there are of each."""
    there = [name for name in State if group[name]]
    if len(there) == 1:
        return there[0]
    return "+".join(f"{group[name]}-{name}" for name in there)


def _show_rows(rows: list[dict[str, Any]]) -> None:
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
                "redriving" if row["run_id"] else row["state"],
                row["cause"],
                row["attempt"],
                moment(row["first_failed_at"]),
                moment(row["next_attempt_at"]),
                row["type"],
                row["event_id"],
            )
            for row in rows
        ),
    )


@app.command()
def show(service: ServiceName, letter_id: LetterId, *, as_json: AsJson = False) -> None:
    """Show a message: why it failed, each attempt, its neighbours, what came after it. Private content masked."""
    with operator() as caller, refusals_in_words():
        letter = caller.get(path_of(service, letter_id))
        letter["later"] = _later_versions(caller, service, letter)
    if as_json:
        print_json({"service": service} | letter)
        return
    _show_letter(service, letter)


def _later_versions(caller: Caller, service: str, letter: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return what its producer published of the subject after it, and whether that took effect here.

    None when the producer doesn't say.
    """
    headers = letter["headers"]
    if not {"source", "subject", "aggregateversion"} <= headers.keys():
        return None
    path = f"/v1/ops/events/{quote(headers['source'], safe='')}"
    try:
        published = caller.items(path, subject=headers["subject"], limit=LARGEST_PAGE)
    except ApiError:
        return None
    version = headers["aggregateversion"]
    later = [event for event in published if event["aggregate_version"] > version][-EVENTS_ASKED:]
    became = _what_became_of(caller, service, [event["event_id"] for event in later])
    return [
        {
            "version": event["aggregate_version"],
            "type": event["type"],
            "event_id": event["event_id"],
            "disposition": became.get(event["event_id"], "on its way"),
        }
        for event in later
    ]


def _what_became_of(caller: Caller, service: str, event_ids: list[str]) -> dict[str, str]:
    if not event_ids:
        return {}
    path = f"/v1/ops/deliveries/{quote(service, safe='')}"
    answer = caller.send("GET", path, params=[("event", event_id) for event_id in event_ids])
    found: list[dict[str, str]] = answer.json()["items"]
    return {entry["event_id"]: entry["disposition"] for entry in found}


_FACTS = (
    "id",
    "event_id",
    "type",
    "queue",
    "state",
    "cause",
    "error",
    "attempt",
    "next_attempt_at",
    "first_failed_at",
    "last_failed_at",
    "decided_by",
    "decided_at",
    "reason",
    "run_id",
    "corrects",
    "superseded_by",
)


def _show_letter(service: str, letter: dict[str, Any]) -> None:
    facts = [(name, letter[name]) for name in _FACTS if letter[name] is not None]
    took = letter["in_inbox_at"]
    print_table(
        ("service", service),
        [
            *(
                (name.replace("_", " "), moment(value) if name.endswith("_at") else value)
                for name, value in facts
            ),
            ("took effect here", moment(took) if took else "no"),
            ("matches contract", _schema(letter["schema_check"])),
            *((f"data.{name}", value) for name, value in letter["payload"]["data"].items()),
            ("private", f"{', '.join(letter['payload']['private_fields']) or 'none'} (masked: reveal)"),
        ],
    )
    print()
    print_table(
        ("attempt (UTC)", "ms", "outcome", "release", "cause", "error"),
        (
            (moment(a["attempted_at"]), a["duration_ms"], a["outcome"], a["release"], a["cause"], a["error"])
            for a in letter["attempts"]
        ),
    )
    _show_neighbours(letter)


def _schema(check: dict[str, Any]) -> str:
    if check["matches"] is None:
        return "there is no contract of this event"
    return "yes" if check["matches"] else "no: " + ", ".join(check["problems"])


def _show_neighbours(letter: dict[str, Any]) -> None:
    neighbours = [("before", one) for one in letter["before"]] + [("after", one) for one in letter["after"]]
    if neighbours:
        print()
        print_table(
            ("of its key", "id", "state", "event", "error"),
            ((where, one["id"], one["state"], one["type"], one["error"]) for where, one in neighbours),
        )
    if letter["later"] is None:
        print("What was published of its subject later isn't known: its producer doesn't answer.")
    elif letter["later"]:
        print()
        print_table(
            ("later version", "event", "here"),
            ((one["version"], one["type"], one["disposition"]) for one in letter["later"]),
        )


@app.command()
def reveal(
    service: ServiceName,
    letter_id: LetterId,
    *,
    reason: Annotated[str, typer.Option(help="why you must see it; kept in the patient's access log")],
) -> None:
    """Show a message's content, patient data included, as JSON."""
    with operator() as caller, refusals_in_words():
        print_json(caller.post(path_of(service, letter_id, "reveal"), {"reason": reason}))


@app.command("dry-run")
def dry_run(
    service: ServiceName,
    letter_ids: LetterIds = None,
    *,
    cause: OfCause = None,
    as_json: AsJson = False,
) -> None:
    """Say what a redrive would come to now; nothing is kept of it. Exit status 1 if something would fail."""
    with operator() as caller, refusals_in_words():
        selection = chosen(caller, service, letter_ids, cause)
        selection.pop("expected_count", None)
        outcomes = _rehearse(caller, service, selection)
    tried = {outcome["held_id"] for outcome in outcomes}
    outcomes += [
        {"held_id": one, "event_id": None, "outcome": "unknown", "error": f"{service} has no such message"}
        for one in selection.get("ids", [])
        if one not in tried
    ]
    if as_json:
        print_json({"service": service, "outcomes": outcomes})
    else:
        print_table(
            ("id", "outcome", "error"), ((o["held_id"], _WOULD[o["outcome"]], o["error"]) for o in outcomes)
        )
    if {outcome["outcome"] for outcome in outcomes} - {"applied", "duplicate"}:
        raise typer.Exit(1)


_WOULD = {
    "applied": "would take effect",
    "duplicate": "took effect before",
    "failed": "would fail",
    "skipped": "would be left alone",
    "unknown": "unknown",
}


def _rehearse(caller: Caller, service: str, selection: dict[str, Any]) -> list[dict[str, Any]]:
    outcomes: list[dict[str, Any]] = []
    after = 0
    while True:
        part = caller.post(path_of(service, "dry-run"), {**selection, "after_id": after})
        outcomes += part["outcomes"]
        if not part["left"] or not part["outcomes"]:
            return outcomes
        after = part["last_id"]
