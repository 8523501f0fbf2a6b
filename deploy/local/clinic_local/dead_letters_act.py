"""`clinic dead-letters redrive|runs|cancel|correct|discard|decisions|approve|reject`: deciding."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from clinic_local.api_client import Caller
from clinic_local.dead_letters_shared import (
    NOT_DONE_YET,
    PAGE,
    LetterId,
    LetterIds,
    OfCause,
    ServiceName,
    chosen,
    path_of,
    refusals_in_words,
    size_of,
    summed_up,
)
from clinic_local.errors import SetupError
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

app = typer.Typer()

POLL_SECONDS = 0.2

Reason = Annotated[str, typer.Option(help="why; kept, shown and audited: no patient data here")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="don't ask")]
RunId = Annotated[str, typer.Argument(metavar="RUN")]
DecisionId = Annotated[str, typer.Argument(metavar="DECISION")]


@app.command()
def redrive(
    service: ServiceName,
    letter_ids: LetterIds = None,
    *,
    cause: OfCause = None,
    rate: Annotated[int, typer.Option(min=1, max=1000, help="messages per second")] = 50,
    discarded: Annotated[bool, typer.Option("--discarded", help="ids that were discarded, too")] = False,
    reason: Annotated[str | None, typer.Option(help="why; kept, shown and audited")] = None,
    wait_seconds: Annotated[float, typer.Option("--wait", min=0, help="how long to watch the run")] = 600,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Let messages be handled again: by this service only, in order per key, their origin unchanged.

    Exit status 1 when one of them failed again, 3 when the run goes on after --wait.
    """
    with operator() as caller, refusals_in_words():
        selection = chosen(caller, service, letter_ids, cause)
        _agree(f"Redrive {plural(size_of(selection), 'message')} of {service}?", yes=yes)
        body = selection | {"rate_per_second": rate, "discarded": discarded, "reason": reason}
        run = caller.post(path_of(service, "redrive"), body)
        run = _watch(caller, service, run, wait_seconds, quiet=as_json)
        failed = _items(caller, service, run, "failed") if run["failed"] else []
    _report_run(service, run, failed, as_json=as_json)


def _agree(question: str, *, yes: bool) -> None:
    if not yes and sys.stdin.isatty() and not typer.confirm(question, err=True):
        raise typer.Exit(1)


def _watch(
    caller: Caller, service: str, run: dict[str, Any], wait_seconds: float, *, quiet: bool
) -> dict[str, Any]:
    """Follow a run until it ends or the time is over; it doesn't need anybody who watches."""
    deadline = time.monotonic() + wait_seconds
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    silent = quiet or not console.is_terminal
    try:
        with Progress(*columns, console=console, disable=silent, transient=True) as bar:
            task = bar.add_task(service, total=run["total"])
            while run["state"] == "running" and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
                run = caller.get(path_of(service, "runs", run["run_id"]), limit=1)["run"]
                bar.update(task, completed=run["total"] - run["waiting"])
    except KeyboardInterrupt:
        print(
            f"The run goes on without you. To stop it: clinic dead-letters cancel {service} {run['run_id']}",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None
    return run


def _items(
    caller: Caller, service: str, run: dict[str, Any], state: str | None = None
) -> list[dict[str, Any]]:
    chosen_state = {} if state is None else {"state": state}
    return caller.items(path_of(service, "runs", run["run_id"]), **chosen_state)


def _report_run(service: str, run: dict[str, Any], failed: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json({"service": service, "run": run, "failed": failed})
    else:
        print(summed_up(run))
        if failed:
            print_table(("id", "error"), ((item["held_id"], item["error"]) for item in failed))
            print(
                f"They wait again, by what they failed with now: clinic dead-letters ls --service {service}"
            )
        if run["state"] == "running":
            print(f"The run goes on: clinic dead-letters runs --service {service}")
    if run["state"] == "running":
        raise typer.Exit(NOT_DONE_YET)
    if run["failed"] or run["skipped"]:
        raise typer.Exit(1)


@app.command()
def runs(
    run_id: Annotated[str | None, typer.Argument(metavar="RUN", help="one run, message by message")] = None,
    *,
    service: Annotated[str | None, typer.Option(help="of one service")] = None,
    as_json: AsJson = False,
) -> None:
    """List redrive runs with their progress; with a run's id what became of each of its messages."""
    with operator() as caller:
        if run_id is not None:
            if service is None:
                raise typer.BadParameter("a run belongs to a service", param_hint="--service")
            with refusals_in_words():
                _show_run(caller, service, run_id, as_json=as_json)
            return
        if service is not None:
            found = [{"service": service} | run for run in caller.items(path_of(service, "runs"))]
            unreachable: dict[str, Any] = {"unreachable": []}
        else:
            unreachable = ask_all(caller, PAGE, whole=False, limit=1)
            found = unreachable.get("runs", [])
    if as_json:
        print_json({"runs": found, "unreachable": unreachable["unreachable"]})
        return
    _show_runs(found)
    warn_of_unreachable(unreachable)


def _show_runs(found: list[dict[str, Any]]) -> None:
    if not found:
        print("None.")
        return
    counts = ("total", "waiting", "applied", "duplicate", "failed", "skipped", "cancelled")
    print_table(
        ("service", "run", "state", *counts, "rate/s", "requested (UTC)", "cause"),
        (
            (
                run["service"],
                run["run_id"],
                run["state"],
                *(run[name] for name in counts),
                run["rate_per_second"],
                moment(run["requested_at"]),
                run["cause"],
            )
            for run in sorted(found, key=lambda run: run["requested_at"], reverse=True)
        ),
    )


def _show_run(caller: Caller, service: str, run_id: str, *, as_json: bool) -> None:
    run = caller.get(path_of(service, "runs", run_id), limit=1)["run"]
    items = _items(caller, service, run)
    if as_json:
        print_json({"service": service, "run": run, "items": items})
        return
    print(summed_up(run))
    print_table(
        ("id", "state", "settled (UTC)", "error"),
        ((item["held_id"], item["state"], moment(item["settled_at"]), item["error"]) for item in items),
    )


@app.command()
def cancel(service: ServiceName, run_id: RunId, *, as_json: AsJson = False) -> None:
    """Stop a run: what it hasn't handled stays as it was."""
    with operator() as caller, refusals_in_words():
        run = caller.post(path_of(service, "runs", run_id, "cancel"))
    if as_json:
        print_json(run)
    else:
        print(summed_up(run))


@app.command()
def correct(
    service: ServiceName,
    letter_id: LetterId,
    *,
    reason: Reason,
    patch: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, allow_dash=True, help="JSON merge patch (RFC 7396)"),
    ] = None,
    body: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, allow_dash=True, help="the whole {data, private}"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a corrected copy from a file (- reads standard input); the original stays, superseded.

    The copy must match the contract, and takes effect when somebody redrives it.
    """
    if (patch is None) == (body is None):
        raise typer.BadParameter("give one of both", param_hint="--patch | --body")
    content = {"patch": _read(patch)} if patch is not None else {"body": _read(body)}
    with operator() as caller, refusals_in_words():
        corrected = caller.post(path_of(service, letter_id, "correct"), {"reason": reason, **content})
    if as_json:
        print_json(corrected)
    else:
        copy_id = corrected["copy_id"]
        print(
            f"Message {copy_id} stands for {letter_id}. Next, by who may: clinic dead-letters redrive {service} {copy_id}"
        )


def _read(file: Path | None) -> Any:
    text = sys.stdin.read() if file is None or str(file) == "-" else file.read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SetupError("dead-letters", f"{file}: not JSON (line {error.lineno})") from error


@app.command()
def discard(
    service: ServiceName,
    letter_ids: LetterIds = None,
    *,
    cause: OfCause = None,
    reason: Reason,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Let messages be, for a reason. They stay visible and can be taken back.

    Exit status 3 when they are so many that a second person must agree first.
    """
    with operator() as caller, refusals_in_words():
        selection = chosen(caller, service, letter_ids, cause)
        _agree(f"Discard {plural(size_of(selection), 'message')} of {service}?", yes=yes)
        decided = caller.post(path_of(service, "discard"), selection | {"reason": reason})
    if as_json:
        print_json(decided)
    elif decided["decision_id"] is None:
        print(f"{plural(decided['count'], 'message')} of {service} discarded.")
    else:
        print(
            f"So many need a second person. Within a day somebody else runs:\n"
            f"  clinic dead-letters approve {service} {decided['decision_id']}"
        )
    if decided["decision_id"] is not None:
        raise typer.Exit(NOT_DONE_YET)


@app.command()
def decisions(service: ServiceName, *, as_json: AsJson = False) -> None:
    """List the decisions that needed a second person. Open ones of all services stand below `ls`."""
    with operator() as caller:
        found = caller.get(path_of(service, "decisions"))
    if as_json:
        print_json(found)
        return
    if not found:
        print("None.")
        return
    print_table(
        ("decision", "state", "messages", "asked (UTC)", "asked by", "decided by", "reason"),
        (
            (
                one["decision_id"],
                one["state"],
                one["count"],
                moment(one["requested_at"]),
                one["requested_by"],
                one["decided_by"],
                one["decision_reason"] or one["reason"],
            )
            for one in found
        ),
    )


@app.command()
def approve(service: ServiceName, decision_id: DecisionId, *, as_json: AsJson = False) -> None:
    """Agree to a discard as the second person."""
    with operator() as caller, refusals_in_words():
        decided = caller.post(path_of(service, "decisions", decision_id, "approve"))
    if as_json:
        print_json(decided)
    else:
        print(f"{plural(decided['count'], 'message')} of {service} discarded.")


@app.command()
def reject(service: ServiceName, decision_id: DecisionId, *, reason: Reason, as_json: AsJson = False) -> None:
    """Refuse a discard, or withdraw one's own request. The messages stay."""
    with operator() as caller, refusals_in_words():
        decided = caller.post(path_of(service, "decisions", decision_id, "reject"), {"reason": reason})
    if as_json:
        print_json(decided)
    else:
        print("Rejected; nothing is discarded.")
