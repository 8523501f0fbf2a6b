"""`clinic reporting`: the read model rebuilt from the event logs, compared, swapped, rolled back.

The work is the workers': a command that is interrupted only stops watching.
"""

import time
from typing import Annotated, Any

import typer

from clinic_local.api_client import Caller
from clinic_local.errors import SetupError
from clinic_local.operations import AsJson, moment, operator, plural, print_json, print_table
from clinic_local.watching import Watch

app = typer.Typer(help="The read model of reports: rebuild, compare, roll back.", no_args_is_help=True)

REBUILDS = "/v1/ops/rebuilds/reporting"
UNDER_WAY = ("requested", "filling", "comparing")
_FAILED = ("failed", "cancelled")


@app.command()
def rebuild(
    *,
    compare_only: Annotated[
        bool, typer.Option("--compare-only", "--dry-run", help="say what differs, and change nothing")
    ] = False,
    roll_back: Annotated[
        bool, typer.Option("--roll-back", help="put back what the last rebuild replaced")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="begin, and don't wait")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the read model again from the event logs beside the live one, compare, and swap.

    Exit status 1 when it failed or was cancelled, or when `--compare-only` found differences.
    """
    if roll_back and (compare_only or detach):
        raise typer.BadParameter("goes alone", param_hint="--roll-back")
    with operator() as caller:
        if roll_back:
            _roll_back(caller, as_json=as_json)
            return
        begun = caller.post(REBUILDS, {"compare_only": compare_only})["rebuild_id"]
        if detach:
            print(f"{begun} has begun. See: clinic reporting status")
            return
        ended = _watch(caller, begun)
    _show(ended, as_json=as_json)
    if ended["state"] in _FAILED or (compare_only and ended["difference_count"]):
        raise typer.Exit(1)


@app.command()
def status(*, as_json: AsJson = False) -> None:
    """Show the last rebuilds, and how far the one that runs is."""
    with operator() as caller:
        rebuilds = caller.get(REBUILDS)["rebuilds"]
    if as_json:
        print_json(rebuilds)
        return
    print_table(
        ("rebuild", "state", "requested (UTC)", "finished (UTC)", "events", "differences"),
        (
            (
                each["rebuild_id"],
                each["state"],
                moment(each["requested_at"]),
                moment(each["finished_at"]),
                each["event_count"] if each["event_count"] is not None else _received(each),
                each["difference_count"],
            )
            for each in rebuilds
        ),
    )


@app.command()
def cancel() -> None:
    """Stop the rebuild that runs. The live read model was never touched."""
    with operator() as caller:
        running = _first(caller, *UNDER_WAY)
        caller.post(f"{REBUILDS}/{running}/cancel")
    print(f"{running} is cancelled.")


def _roll_back(caller: Caller, *, as_json: bool) -> None:
    swapped = _first(caller, "swapped")
    caller.post(f"{REBUILDS}/{swapped}/roll-back")
    _show(caller.get(f"{REBUILDS}/{swapped}"), as_json=as_json)


def _first(caller: Caller, *states: str) -> str:
    for each in caller.get(REBUILDS)["rebuilds"]:
        if each["state"] in states:
            return str(each["rebuild_id"])
    raise SetupError("clinic", f"no rebuild is {' or '.join(states)}", "See: clinic reporting status")


def _watch(caller: Caller, rebuild_id: str) -> dict[str, Any]:
    with Watch() as watch:
        while True:
            found: dict[str, Any] = caller.get(f"{REBUILDS}/{rebuild_id}")
            if found["state"] not in UNDER_WAY:
                return found
            total = sum(job["total"] or 0 for job in watch.jobs(caller, rebuild_id))
            silent = [
                part["producer"] for part in found["parts"] if not part["received"] and part["sent"] is None
            ]
            waiting = f"waiting for {', '.join(silent)}" if silent else ""
            watch.tell(found["state"], _received(found), total, waiting)
            time.sleep(watch.every_seconds)


def _received(found: dict[str, Any]) -> int:
    return sum(part["received"] for part in found["parts"])


def _show(ended: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(ended)
        return
    counted = plural(ended["event_count"] or 0, "event")
    print(f"{ended['rebuild_id']}: {ended['state']}, {counted}, checksum {ended['checksum']}")
    if ended["failure"]:
        print(f"It failed: {ended['failure']}.")
    if ended["differences"]:
        print_table(
            ("table", "missing", "surplus", "different"),
            (
                (row["table"], row["missing"], row["surplus"], row["different"])
                for row in ended["differences"]
            ),
        )
    elif ended["difference_count"] == 0:
        print("The live read model was the same, bit for bit.")
