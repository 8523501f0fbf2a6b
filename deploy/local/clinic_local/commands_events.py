"""`clinic events --subject UUID`: what happened to a subject, across services, in the order of time."""

from typing import Annotated
from uuid import UUID

import typer

from clinic_local.operations import (
    AsJson,
    ask_all,
    moment,
    operator,
    print_json,
    print_table,
    warn_of_unreachable,
)

app = typer.Typer(help="What happened to a subject: a patient, an appointment, an invoice.")


@app.callback(invoke_without_command=True)
def events(
    subject: Annotated[UUID, typer.Option(help="the id that the events are about")],
    *,
    as_json: AsJson = False,
) -> None:
    """List the events about a subject, of all services, oldest first. Payloads are never shown."""
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
