"""Step-up: what is sensitive asks how strongly and how long ago the caller showed who they are (RFC 9470).

A route declares `dependencies=RECENT_AUTHENTICATION`; what only sometimes is sensitive calls
`require_recent_authentication`. Clients have no second factor: they show their secret for every token.
"""

from datetime import datetime
from typing import Any

from fastapi import Depends, Request

from clinic_shared.errors import UnauthenticatedError
from clinic_shared.principal import AAL1, AAL2, Principal

MAX_AGE_SECONDS = 300

_RANK = {None: 0, AAL1: 1, AAL2: 2}
_PEOPLE = {"staff", "patient"}


class StepUpRequiredError(UnauthenticatedError):
    """What was asked for is sensitive, and the login is too long ago or was made with one factor only."""

    slug = "insufficient-user-authentication"
    title = "Show once more that it is you"
    fix = (
        "Send a code or a passkey to `/v1/auth/step-up` and repeat the request with the token that comes back;"
        " `acr_values` and `max_age` say how strong and how fresh it must be."
    )

    def __init__(self, *, acr: str, max_age_seconds: int) -> None:
        super().__init__(acr_values=acr, max_age=max_age_seconds)
        self.challenge = (
            f'Bearer error="insufficient_user_authentication", acr_values="{acr}", max_age={max_age_seconds}'
        )


def is_strong_enough(have: str | None, wanted: str) -> bool:
    return _RANK.get(have, 0) >= _RANK[wanted]


def require_recent_authentication(
    caller: Principal, *, now: datetime, acr: str = AAL2, max_age_seconds: int = MAX_AGE_SECONDS
) -> None:
    """Raises StepUpRequiredError."""
    if caller.kind not in _PEOPLE:
        return
    shown_at = caller.authenticated_at
    is_fresh = shown_at is not None and (now - shown_at).total_seconds() <= max_age_seconds
    if not (is_fresh and is_strong_enough(caller.acr, acr)):
        raise StepUpRequiredError(acr=acr, max_age_seconds=max_age_seconds)


async def _require_of_caller(request: Request) -> None:
    runtime = request.app.state.runtime
    if runtime.settings.sign_in_policy_is_enforced:
        caller: Principal = request.scope["clinic.context"].principal
        require_recent_authentication(caller, now=runtime.clock.now())


RECENT_AUTHENTICATION: tuple[Any, ...] = (Depends(_require_of_caller),)
"""Two factors within the last five minutes, wherever the sign-in policy is enforced."""
