"""`clinic trace ID`: what happened around an id, across services: cause below cause, with times."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any

import typer

from clinic_local.errors import SetupError
from clinic_local.event_chain import Chain, Happening, chain_of, milliseconds
from clinic_local.operations import AsJson, moment, operator, print_json, printable, warn_of_unreachable

_ADVICE = (
    "It may be the id of a patient, an appointment, a referral, an order, a message, a laboratory's message,"
    " an event, a request (X-Request-Id), a correlation or a trace."
)
_MOMENT_WIDTH = len("2026-01-01 00:00:00.000")


def trace(
    about: Annotated[str, typer.Argument(metavar="ID", help="of anything: see above")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show the chain of events around an id: what caused what, when, and who has applied it.

    The id may be that of a patient, an appointment, a referral, an order, a message, an event, a request
    (X-Request-Id), a correlation or a trace. Payloads are never shown. Exit status 1 when nothing is known.
    """
    with operator() as caller:
        try:
            chain = chain_of(caller, about)
        except ValueError:
            raise SetupError("clinic", "that is no id", _ADVICE) from None
    if not chain.beginnings:
        warn_of_unreachable({"unreachable": chain.unreachable})
        raise SetupError("clinic", f"no service knows an event by the id {about}", _ADVICE)
    if as_json:
        print_json({"chain": [one.document() for one in chain.beginnings], "unreachable": chain.unreachable})
        return
    for line in _lines(chain):
        print(line)
    warn_of_unreachable({"unreachable": chain.unreachable})


def _lines(chain: Chain) -> Iterator[str]:
    shown = ""
    for beginning in chain.beginnings:
        journey = _journey(beginning.event)
        if journey != shown:
            yield from ("",) if shown else ()
            yield journey
            shown = journey
        yield from _tree(beginning, "", "")


def _journey(event: Any) -> str:
    trace_id = event["trace_id"]
    return f"journey {event['correlation_id']}" + (f"  trace {trace_id}" if trace_id else "")


def _tree(happening: Happening, branch: str, indent: str) -> Iterator[str]:
    event = happening.event
    at = moment(event["recorded_at"], milliseconds=True) or ""
    words = [event["type"], f"version {event['aggregate_version']}", f"event {event['event_id']}"]
    if happening.delay is not None:
        words.insert(0, _after(happening.delay))
    if abs(happening.after(event["occurred_at"])) > timedelta(seconds=1):
        words.append(f"occurred {moment(event['occurred_at'])}")
    if event["origin"] != "live":
        words.append(event["origin"])
    yield f"{at:{_MOMENT_WIDTH}}  {branch}{printable('  '.join(words))}"
    bar = "│  " if happening.consequences else "   "
    for line in _effects(happening):
        yield f"{'':{_MOMENT_WIDTH}}  {indent}{bar}{printable(line)}"
    for number, consequence in enumerate(happening.consequences, 1):
        is_last = number == len(happening.consequences)
        yield from _tree(
            consequence, indent + ("└─ " if is_last else "├─ "), indent + ("   " if is_last else "│  ")
        )


def _effects(happening: Happening) -> Iterator[str]:
    applied = [
        f"{effect['service']} {_after(happening.after(effect['at']))}"
        for effect in happening.effects
        if effect["disposition"] == "applied"
    ]
    if applied:
        yield f"applied by {', '.join(applied)}"
    for effect in happening.effects:
        if effect["disposition"] != "applied":
            yield (
                f"{effect['disposition']} by {effect['service']} {_after(happening.after(effect['at']))}:"
                f" {effect['cause']} (dead letter {effect['service']} {effect['dead_letter_id']})"
            )
    if happening.waiting:
        yield f"not yet applied by {', '.join(happening.waiting)}"


def _after(delay: timedelta) -> str:
    seconds = delay.total_seconds()
    if abs(seconds) < 1:
        return f"{milliseconds(delay):+.0f} ms"
    if abs(seconds) < 60:  # noqa: PLR2004
        return f"{seconds:+.1f} s"
    return f"+{timedelta(seconds=round(seconds))}"
