"""`clinic partitions`: the months of event logs and inboxes, how large they are, and when each may go."""

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


def partitions(*, as_json: AsJson = False) -> None:
    """List the months of every service's event log and inbox. Exit status 1 when rows lie in a default one."""
    with operator() as caller:
        merged = ask_all(caller, "partitions", whole=False)
    found = sorted(merged["partitions"], key=lambda part: (part["service"], part["name"]))
    stray = [part for part in found if part["starts_at"] is None and part["estimated_rows"]]
    if as_json:
        print_json({"partitions": found, "unreachable": merged["unreachable"]})
    else:
        print_table(
            ("service", "partition", "from (UTC)", "rows, about", "KiB", "may go (UTC)"),
            (
                (
                    part["service"],
                    part["name"],
                    moment(part["starts_at"]),
                    part["estimated_rows"],
                    part["size_bytes"] // 1024,
                    moment(part["expires_at"]) or "never",
                )
                for part in found
            ),
        )
    warn_of_unreachable(merged)
    if stray:
        raise typer.Exit(1)
