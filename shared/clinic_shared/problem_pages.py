"""What the page behind each problem's `type` URL says: its cause and what to do about it.

Slugs that a service adds speak for themselves: the docstring and `fix` of their DomainError class.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

from clinic_shared.errors import DomainError


@dataclass(frozen=True)
class ProblemPage:
    """What the page behind a problem's `type` says."""

    title: str
    status: int
    cause: str
    fix: str


PROBLEMS: dict[str, ProblemPage] = {
    "invalid-request": ProblemPage(
        "The request is not valid",
        422,
        "A field is missing, has the wrong form, or breaks a rule of the API.",
        "Each member of `errors` names the part of the request, a JSON pointer into it and the rule.",
    ),
    "invalid-json": ProblemPage(
        "The body is not acceptable JSON",
        400,
        "The body isn't UTF-8 JSON, repeats a key, nests deeper than 32, or holds NaN, Infinity or NUL.",
        "Send plain JSON as RFC 8259 describes it, each key once.",
    ),
    "invalid-url": ProblemPage(
        "The URL is not acceptable",
        400,
        "The path or query holds a NUL character.",
        "Percent-encode only characters that belong to the value.",
    ),
    "body-too-large": ProblemPage(
        "The body is too large",
        413,
        "The body is larger than this operation takes.",
        "`max_bytes` says how much it takes. Send less, or send it in parts.",
    ),
    "unsupported-media-type": ProblemPage(
        "The body's media type is not supported",
        415,
        "The Content-Type (or Content-Encoding) isn't one that this operation takes.",
        "Send one of `supported`, in UTF-8 and without compression.",
    ),
    "unauthenticated": ProblemPage(
        "Credentials are missing or not valid",
        401,
        "There is no bearer token, or it is expired, altered or meant for someone else.",
        "Get a fresh access token and send it as `Authorization: Bearer ...`.",
    ),
    "forbidden": ProblemPage(
        "You may not do this",
        403,
        "Your role, centre or department doesn't include this action. The refusal was recorded.",
        "Ask your administrator if you need it for your work.",
    ),
    "not-found": ProblemPage(
        "There is no such resource",
        404,
        "It doesn't exist, was removed, or isn't yours to see.",
        "Check the id and that you are signed in as the right person.",
    ),
    "method-not-allowed": ProblemPage(
        "The method is not allowed here",
        405,
        "The resource exists but doesn't take this method.",
        "The `Allow` header lists those that it takes.",
    ),
    "conflict": ProblemPage(
        "The request conflicts with the current state",
        409,
        "What you ask for contradicts what is already there.",
        "Read the resource again and decide anew.",
    ),
    "reference-not-yet-known": ProblemPage(
        "A referenced resource is not known here yet",
        409,
        "The resource was created a moment ago and its news is still under way, or it doesn't exist.",
        "Try again after `Retry-After` seconds; if that doesn't help, check the id.",
    ),
    "precondition-failed": ProblemPage(
        "The resource was changed by someone else",
        412,
        "Its version isn't the one in your If-Match header.",
        "Read it again, apply your change to the new version, and send that version's ETag.",
    ),
    "precondition-required": ProblemPage(
        "This request needs an If-Match header",
        428,
        "Changing this resource without saying which version you saw could undo someone's work.",
        "Send the ETag of the version you read as `If-Match`.",
    ),
    "idempotency-key-required": ProblemPage(
        "This request needs an Idempotency-Key header",
        400,
        "Without a key, a repeated request could take effect twice.",
        "Send a fresh UUID as `Idempotency-Key`, and the same one when you repeat the request.",
    ),
    "idempotency-key-invalid": ProblemPage(
        "The Idempotency-Key header is not valid",
        400,
        "A key has 1 to 255 printable ASCII characters, and there is one of it.",
        "Send a UUID.",
    ),
    "idempotency-key-reused": ProblemPage(
        "The Idempotency-Key was used for another request",
        422,
        "The key came with a different method, path or body within the last 24 hours.",
        "Use a fresh key for each new request.",
    ),
    "temporarily-unavailable": ProblemPage(
        "The service can't take this right now",
        503,
        "Something that this operation needs is down for the moment.",
        "Try again after `Retry-After` seconds, with the same Idempotency-Key if it is a write.",
    ),
    "unexpected": ProblemPage(
        "Something went wrong on our side",
        500,
        "A defect. It was logged and counted under the request's id.",
        "Try once more; if it stays, report `request_id`.",
    ),
}


def problem_pages(*packages: str) -> dict[str, ProblemPage]:
    """Return the pages of all problems that the loaded code, or these packages of it, can answer with."""
    pages = dict(PROBLEMS)
    for error in _subclasses(DomainError):
        if not packages or error.__module__.partition(".")[0] in packages:
            own = ProblemPage(error.title, error.status, inspect.getdoc(error) or "", error.fix)
            pages.setdefault(error.slug, own)
    return dict(sorted(pages.items()))


def _subclasses(parent: type[DomainError]) -> Iterator[type[DomainError]]:
    for child in parent.__subclasses__():
        yield child
        yield from _subclasses(child)
