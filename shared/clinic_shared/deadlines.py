"""How long somebody still waits for an answer: given by the gateway, honoured before work begins.

The header holds what is left in milliseconds, not an instant: clocks of different machines differ.
"""

import time

from starlette.types import Scope

from clinic_shared.errors import DomainError

HEADER = "X-Clinic-Deadline-Ms"
_NAME = HEADER.lower().encode()
_INSTANT = "clinic.deadline"
_DIGITS = 9


class DeadlineExceededError(DomainError):
    """The time that a request has was over before its work began. It had no effect."""

    slug = "deadline-exceeded"
    title = "The request's time was over before its turn came"
    status = 504
    retry_after_seconds = 2
    fix = "Try again: something was busy or slow for a moment."


def read(scope: Scope) -> None:
    """Note when a request's answer is too late. Called once, when it arrives."""
    for name, value in scope["headers"]:
        if name == _NAME and value.isdigit() and len(value) <= _DIGITS:
            scope[_INSTANT] = time.monotonic() + int(value) / 1000


def deadline_of(scope: Scope) -> float | None:
    """Return the instant, of `time.monotonic`, from which on nobody waits; None without a deadline."""
    deadline: float | None = scope.get(_INSTANT)
    return deadline


def seconds_left(deadline: float | None) -> float | None:
    """Return what is left of a deadline. Raises DeadlineExceededError when that is nothing."""
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise DeadlineExceededError
    return left
