"""`clinic events --subject UUID`: what happened to a subject, across services. `clinic events resend`: once more."""

import time
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

import typer

from clinic_local.api_client import Caller
from clinic_local.operations import (
    AsJson,
    ask_all,
    moment,
    operator,
    plural,
    print_json,
    print_table,
    warn_of_unreachable,
)
from clinic_local.watching import Watch

app = typer.Typer(help="What happened to a subject: a patient, an appointment, an invoice. And: resend.")


@app.callback(invoke_without_command=True)
def events(
    context: typer.Context,
    subject: Annotated[UUID | None, typer.Option(help="the id that the events are about")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List the events about a subject, of all services, oldest first. Payloads are never shown."""
    if context.invoked_subcommand is not None:
        return
    if subject is None:
        raise typer.BadParameter("which subject?", param_hint="--subject")
    with operator() as caller:
        merged = ask_all(caller, "events", subject=subject)
    found = sorted(merged.get("items", []), key=lambda event: (event["recorded_at"], event["event_id"]))
    if as_json:
        print_json({"items": found, "unreachable": merged["unreachable"]})
        return
    print_table(
        ("recorded (UTC)", "event", "version", "origin", "event id", "caused by", "correlation"),
        (
            (
                moment(event["recorded_at"], milliseconds=True),
                event["type"],
                event["aggregate_version"],
                event["origin"],
                event["event_id"],
                event["causation_id"],
                event["correlation_id"],
            )
            for event in found
        ),
    )
    if not found:
        print("No service published anything about it.")
    warn_of_unreachable(merged)


@app.command()
def resend(
    consumer: Annotated[str, typer.Option(help="whose queues are filled again")],
    from_at: Annotated[datetime, typer.Option("--from", metavar="TIME", help="recorded since then, in UTC")],
    until_at: Annotated[
        datetime | None, typer.Option("--until", metavar="TIME", help="and before; else up to now")
    ] = None,
    event_types: Annotated[
        list[str] | None, typer.Option("--type", help="only this type; repeatable")
    ] = None,
    subject: Annotated[UUID | None, typer.Option(help="only about this subject")] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only count")] = False,
    keep_origin: Annotated[
        bool,
        typer.Option("--keep-origin", help="as first published: messages and payments may follow from it"),
    ] = False,
    rate: Annotated[int | None, typer.Option(min=1, help="events per second of each owner")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="begin, and don't wait")] = False,
    as_json: AsJson = False,
) -> None:
    """Fill a consumer's queues again from the event logs, when events were lost on the way.

    What took effect there before is skipped: the events keep their ids.
    """
    path = f"/v1/ops/replays/{quote(consumer, safe='')}"
    body = {
        "from_at": _in_utc(from_at),
        "until_at": None if until_at is None else _in_utc(until_at),
        "event_types": event_types or [],
        "subject": None if subject is None else str(subject),
        "dry_run": dry_run,
        "keep_origin": keep_origin,
        "events_per_second": rate,
    }
    with operator() as caller:
        replay_id = caller.post(path, body)["replay_id"]
        if detach:
            print(f"{replay_id} has begun. See: clinic events replays --consumer {consumer}")
            return
        ended = _watch(caller, path, replay_id)
    if as_json:
        print_json(ended)
        return
    print_table(("owner", "events"), ((part["producer"], part["event_count"]) for part in ended["parts"]))
    total = plural(sum(part["event_count"] or 0 for part in ended["parts"]), "event")
    print(f"{total} would be sent." if dry_run else f"{total} sent: {ended['state']}.")


@app.command()
def replays(
    consumer: Annotated[str, typer.Option(help="who asked")],
    cancel: Annotated[UUID | None, typer.Option(help="stop this one")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List what a consumer asked of the event logs, the newest first."""
    path = f"/v1/ops/replays/{quote(consumer, safe='')}"
    with operator() as caller:
        if cancel is not None:
            caller.post(f"{path}/{cancel}/cancel")
        found = caller.get(path)["requests"]
    if as_json:
        print_json(found)
        return
    print_table(
        ("replay", "purpose", "state", "requested (UTC)", "events", "still to answer"),
        (
            (
                each["replay_id"],
                each["purpose"],
                each["state"],
                moment(each["requested_at"]),
                sum(part["event_count"] or 0 for part in each["parts"]),
                ", ".join(part["producer"] for part in each["parts"] if part["completed_at"] is None) or None,
            )
            for each in found
        ),
    )


def _watch(caller: Caller, path: str, replay_id: str) -> dict[str, Any]:
    with Watch() as watch:
        while True:
            found = caller.get(path)["requests"]
            mine: dict[str, Any] = next(each for each in found if each["replay_id"] == replay_id)
            if mine["state"] != "running":
                return mine
            jobs = watch.jobs(caller, replay_id)
            watch.tell(
                "sending", sum(job["event_count"] for job in jobs), sum(job["total"] or 0 for job in jobs)
            )
            time.sleep(watch.every_seconds)


def _in_utc(given: datetime) -> str:
    return given.replace(tzinfo=given.tzinfo or UTC).isoformat()
