"""`clinic messages`: what laboratories, payment providers and messengers gave us, as it came.

An id belongs to a service. Whatever was decided about a message, and whoever looked at it, is kept.
"""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

import typer

from clinic_local.api_client import ApiError, Caller
from clinic_local.dead_letters_shared import NOT_DONE_YET
from clinic_local.errors import SetupError
from clinic_local.operations import (
    LARGEST_PAGE,
    AsJson,
    ask_all,
    moment,
    operator,
    plural,
    print_json,
    print_table,
    printable,
    warn_of_unreachable,
)

app = typer.Typer(
    help="Messages that came from outside: look, process again, correct, discard.", no_args_is_help=True
)

PAGE = "messages"
_REFUSALS = {"selection-changed", "self-approval", "decision-is-over", "not-found"}
Service = Annotated[str, typer.Argument(metavar="SERVICE", help="who received it")]
MessageId = Annotated[UUID, typer.Argument(metavar="ID")]
MessageIds = Annotated[list[UUID] | None, typer.Argument(metavar="ID")]
OfCause = Annotated[str | None, typer.Option("--cause", help="all parked messages of this cause")]
Reason = Annotated[str, typer.Option(help="why; kept, shown and audited: no patient data here")]
DecisionId = Annotated[UUID, typer.Argument(metavar="DECISION")]


def _path(service: str, *rest: object) -> str:
    return "/".join((f"/v1/ops/{PAGE}", *(quote(str(part), safe="") for part in (service, *rest))))


@contextmanager
def _asking() -> Iterator[Caller]:
    """Call as the operator; say in words why a decision was refused: nothing was decided then."""
    with operator() as caller:
        try:
            yield caller
        except ApiError as error:
            if error.slug not in _REFUSALS:
                raise
            detail = error.problem.get("detail", error.slug)
            raise SetupError("messages", detail, "Look again: clinic messages ls") from error


@app.command("ls")
def list_messages(
    service: Annotated[str | None, typer.Option(help="of one service")] = None,
    interface: Annotated[str | None, typer.Option(help="of one interface")] = None,
    sender: Annotated[str | None, typer.Option(help="of one sender or partner")] = None,
    state: Annotated[
        str | None, typer.Option(help="received, processed, parked, discarded, superseded")
    ] = None,
    cause: Annotated[str | None, typer.Option(help="of one cause")] = None,
    reference: Annotated[str | None, typer.Option(help="control id (MSH-10), or digest")] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, max=LARGEST_PAGE, help="rows of each service")] = 50,
    as_json: AsJson = False,
) -> None:
    """List messages, and what is parked by cause; open decisions below."""
    wanted = {
        "interface": interface,
        "sender": sender,
        "state": state,
        "cause": cause,
        "reference": reference,
    }
    parameters = {name: value for name, value in wanted.items() if value is not None}
    with _asking() as caller:
        merged = ask_all(caller, PAGE, whole=False, limit=limit, **parameters)
    if service is not None:
        for name in ("items", "groups", "decisions"):
            merged[name] = [one for one in merged[name] if one["service"] == service]
    if as_json:
        print_json({name: merged[name] for name in ("items", "groups", "decisions", "unreachable")})
        return
    _show(merged)
    warn_of_unreachable(merged)


def _show(merged: dict[str, Any]) -> None:
    if merged["groups"]:
        names = ("service", "cause", "interface", "error", "count")
        print_table(names, ([group[name] for name in names] for group in merged["groups"]))
        print()
    print_table(
        ("service", "id", "received (UTC)", "interface", "state", "duplicates", "last error"),
        (
            (
                row["service"],
                row["id"],
                moment(row["received_at"]),
                row["interface"],
                row["state"],
                row["duplicates"],
                row["last_error"],
            )
            for row in merged["items"]
        ),
    )
    for one in merged["decisions"]:
        if one["state"] == "pending":
            asked = f"{plural(one['count'], 'message')} of {one['service']}: {one['reason']}"
            print(f"\nto be discarded if somebody else approves ({one['decision_id']}): {printable(asked)}")


@app.command()
def show(service: Service, message_id: MessageId, *, as_json: AsJson = False) -> None:
    """Show a message's way and what became of it. Its content stays masked: see `reveal`."""
    with _asking() as caller:
        message = caller.get(_path(service, message_id))
    if as_json:
        print_json(message)
        return
    shown = {name: value for name, value in message.items() if not isinstance(value, list | dict)}
    print_table(("field", "value"), (*shown.items(), *message["envelope"].items()))
    print()
    print_table(("became", "reason"), ((fate["disposition"], fate["reason"]) for fate in message["fates"]))
    print()
    columns = ("at (UTC)", "step", "error", "by", "reason")
    print_table(
        columns,
        (
            (
                moment(step["at"], milliseconds=True),
                step["step"],
                step["error"],
                step["decided_by"],
                step["reason"],
            )
            for step in message["history"]
        ),
    )


@app.command()
def reveal(
    service: Service,
    message_id: MessageId,
    reason: Reason,
    *,
    out: Annotated[Path | None, typer.Option(help="write the bytes as they came into this file")] = None,
) -> None:
    """Show a message's content, for a reason. Whoever looks stands in the audit log."""
    with _asking() as caller:
        found = caller.post(_path(service, message_id, "reveal"), {"reason": reason})
    raw = base64.b64decode(found["body"])
    if out is not None:
        out.write_bytes(raw)
        print(f"{len(raw)} bytes are in {out}")
        return
    text = found["text"] if found["text"] is not None else raw.decode("latin-1")
    for line in text.splitlines():
        print(printable(line))


@app.command("dry-run")
def dry_run(
    service: Service, message_ids: MessageIds = None, *, cause: OfCause = None, as_json: AsJson = False
) -> None:
    """Process parked messages as they would be now, and take everything back. Exit status 1 if one fails."""
    with _asking() as caller:
        tried = caller.post(_path(service, "dry-run"), _named(message_ids, cause))["items"]
    if as_json:
        print_json(tried)
    else:
        print_table(
            ("id", "would be", "error", "parts", "would publish"),
            (
                (one["item_id"], one["would"], one["error"], _counts(one["fates"]), _counts(one["events"]))
                for one in tried
            ),
        )
    if any(one["would"] == "failed" for one in tried):
        raise typer.Exit(1)


@app.command()
def reprocess(
    service: Service,
    message_ids: MessageIds = None,
    *,
    cause: OfCause = None,
    reason: Annotated[str | None, typer.Option(help="why; kept, shown and audited")] = None,
) -> None:
    """Let parked messages be processed again, in the order in which they came."""
    with _asking() as caller:
        selection = _as_seen(caller, service, message_ids, cause) | {"reason": reason}
        count = caller.post(_path(service, "reprocess"), selection)["count"]
    print(f"{plural(count, 'message')} will be processed again. See: clinic messages ls --service {service}")


@app.command()
def correct(
    service: Service,
    message_id: MessageId,
    file: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="the whole message as it should be")
    ],
    reason: Reason,
) -> None:
    """Put a corrected copy in a parked message's place. The original stays, and names its copy."""
    body = base64.b64encode(file.read_bytes()).decode()
    with _asking() as caller:
        made = caller.post(_path(service, message_id, "correct"), {"body": body, "reason": reason})
    print(f"{made['copy_id']} stands for it now.")


@app.command()
def discard(
    service: Service, reason: Reason, message_ids: MessageIds = None, *, cause: OfCause = None
) -> None:
    """Ask to let parked messages be. Exit status 3: a second person has to approve it."""
    with _asking() as caller:
        selection = _as_seen(caller, service, message_ids, cause)
        asked = caller.post(_path(service, "discard"), selection | {"reason": reason})["decision_id"]
    print(f"Somebody else has to agree: clinic messages approve {service} {asked}")
    raise typer.Exit(NOT_DONE_YET)


@app.command()
def approve(service: Service, decision: DecisionId) -> None:
    """Agree, as the second person, that messages are discarded."""
    with _asking() as caller:
        count = caller.post(_path(service, "decisions", decision, "approve"))["count"]
    print(f"{plural(count, 'message')} discarded.")


@app.command()
def reject(service: Service, decision: DecisionId, reason: Reason) -> None:
    """Refuse a request to discard, or withdraw one's own."""
    with _asking() as caller:
        caller.post(_path(service, "decisions", decision, "reject"), {"reason": reason})
    print("The messages stay as they are.")


def _named(ids: list[UUID] | None, cause: str | None) -> dict[str, Any]:
    if bool(ids) == (cause is not None):
        raise typer.BadParameter("name ids or a cause", param_hint="ID... | --cause")
    return {"ids": [str(one) for one in dict.fromkeys(ids)]} if ids else {"cause": cause}


def _as_seen(caller: Caller, service: str, ids: list[UUID] | None, cause: str | None) -> dict[str, Any]:
    """Return a selection with what is seen of its cause now, so that nothing is decided unseen."""
    selection = _named(ids, cause)
    if cause is None:
        return selection
    groups = [group for group in caller.get(_path(service), limit=1)["groups"] if group["cause"] == cause]
    if not groups:
        raise SetupError("messages", f"no parked message of cause {cause}", "Look at: clinic messages ls")
    seen = {"expected_count": sum(group["count"] for group in groups)}
    return selection | seen | {"up_to_id": max(group["last_id"] for group in groups)}


def _counts(counted: dict[str, int]) -> str | None:
    return ", ".join(f"{count} {name}" for name, count in sorted(counted.items())) or None
