"""`clinic flow`: where events go, how fast, and where they wait."""

from typing import Annotated, Any

import typer
from rich.text import Text

from clinic_local.operations import (
    AsJson,
    ask_all,
    operator,
    plural,
    print_json,
    print_table,
    warn_of_unreachable,
)


def flow(
    *,
    whole: Annotated[bool, typer.Option("--all", help="subscriptions with nothing to tell, too")] = False,
    as_json: AsJson = False,
) -> None:
    """Show services with their outboxes, and subscriptions with rate, lag, held and parked messages.

    Exit status 1 when published events are missing at a consumer, or when a service didn't answer.
    """
    with operator() as caller:
        found = ask_all(caller, "event-flow", whole=False)
    if as_json:
        print_json(found)
    else:
        _show_services(found["services"])
        print()
        _show_subscriptions(found["subscriptions"], whole=whole)
        warn_of_unreachable(found)
    if found["unreachable"] or any((edge["unaccounted"] or 0) > 0 for edge in found["subscriptions"]):
        raise typer.Exit(1)


def _show_services(services: list[dict[str, Any]]) -> None:
    columns = ("service", "state", "workers", "outbox", "oldest", "out/s", "in/s", "held", "parked")
    print_table(
        columns,
        (
            (
                node["service"],
                Text(node["state"], "green" if node["state"] == "running" else "bold red"),
                node["workers"],
                node["outbox_pending"],
                _seconds(node["outbox_oldest_seconds"]),
                _rate(node["published_per_second"]),
                _rate(node["applied_per_second"]),
                node["held"],
                node["parked"],
            )
            for node in services
        ),
    )


def _show_subscriptions(edges: list[dict[str, Any]], *, whole: bool) -> None:
    shown = [edge for edge in edges if whole or _tells_something(edge)]
    columns = ("from", "to", "events/s", "lag", "oldest", "held", "parked", "unaccounted")
    print_table(
        columns,
        (
            (
                edge["producer"],
                edge["consumer"],
                _rate(edge["per_second"]),
                edge["lag_events"],
                _seconds(edge["lag_seconds"]),
                edge["held"],
                edge["parked"],
                edge["unaccounted"],
            )
            for edge in shown
        ),
    )
    if len(shown) < len(edges):
        quiet = plural(len(edges) - len(shown), "subscription")
        print(f"and {quiet} without traffic, lag, held or parked messages (--all shows them)")


def _tells_something(edge: dict[str, Any]) -> bool:
    unknown = any(edge[name] is None for name in ("per_second", "lag_events", "held"))
    figures = ("per_second", "lag_events", "lag_seconds", "held", "parked", "unaccounted")
    return unknown or any(edge[name] for name in figures)


def _rate(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f} s"
