"""What the commands about dead letters have in common: paths, choosing messages, refusals in words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import quote

import typer

from clinic_local.api_client import ApiError, Caller
from clinic_local.errors import SetupError
from clinic_local.operations import plural

PAGE = "dead-letters"
NOT_DONE_YET = 3
"""Exit status: decided, but a second person or a run's end is still to come."""

ServiceName = Annotated[str, typer.Argument(metavar="SERVICE", help="who could not handle it")]
LetterId = Annotated[int, typer.Argument(metavar="ID")]
LetterIds = Annotated[list[int] | None, typer.Argument(metavar="ID")]
OfCause = Annotated[str | None, typer.Option("--cause", help="all parked messages of this cause")]

_CHANGED = {
    "gone": "took effect meanwhile, or never were",
    "redriving": "are in a run already",
    "discarded": "are discarded",
    "superseded": "have a corrected copy that stands for them",
}


def path_of(service: str, *rest: object) -> str:
    return "/".join((f"/v1/ops/{PAGE}", *(quote(str(part), safe="") for part in (service, *rest))))


def chosen(caller: Caller, service: str, ids: list[int] | None, cause: str | None) -> dict[str, Any]:
    """Return a selection as the API takes it: given ids, or a cause as it is seen now."""
    given = list(dict.fromkeys(ids or ()))
    if bool(given) == (cause is not None):
        raise typer.BadParameter("name ids or a cause", param_hint="ID... | --cause")
    if given:
        return {"ids": given}
    groups = caller.get(path_of(service), cause=cause, limit=1)["groups"]
    count = sum(group["selectable"] for group in groups)
    if not count:
        raise SetupError(
            "dead-letters",
            f"no parked message of cause {cause} in {service}",
            "Look at: clinic dead-letters ls",
        )
    return {
        "cause": cause,
        "expected_count": count,
        "up_to_id": max(group["last_id"] for group in groups),
    }


def size_of(selection: dict[str, Any]) -> int:
    return int(selection.get("expected_count") or len(selection["ids"]))


@contextmanager
def refusals_in_words() -> Iterator[None]:
    """Say what to do about a decision that was refused; nothing was decided then."""
    try:
        yield
    except ApiError as error:
        if error.slug == "selection-changed":
            raise SetupError(
                "dead-letters", _told(error.problem), "Look again: clinic dead-letters ls"
            ) from error
        if error.slug == "contract-refuses" and "problems" in error.problem:
            problems = "\n".join(error.problem["problems"])
            raise SetupError("dead-letters", "the copy would not match its contract", problems) from error
        if error.slug in {"self-approval", "decision-is-over", "run-is-over", "already-applied", "not-found"}:
            raise SetupError("dead-letters", str(error.problem["detail"])) from error
        raise


def _told(problem: dict[str, Any]) -> str:
    told = [
        f"{', '.join(map(str, problem[kind]))} {words}"
        for kind, words in _CHANGED.items()
        if problem.get(kind)
    ]
    return f"{problem['detail']} Nothing was decided." + (f" ({'; '.join(told)})" if told else "")


def summed_up(run: dict[str, Any]) -> str:
    """Say in a sentence what a run came to."""
    parts = (
        ("waiting", "wait for their turn"),
        ("applied", "took effect"),
        ("duplicate", "had taken effect before"),
        ("failed", "failed again"),
        ("skipped", "were left alone behind one that failed"),
        ("cancelled", "were not handled"),
    )
    told = ", ".join(f"{run[name]} {words}" for name, words in parts if run[name])
    return f"Of {plural(run['total'], 'message')} {told}."
