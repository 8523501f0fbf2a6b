"""Who sent a message, as the broker vouches for it: it lets nobody name another user (validated user-id).

Where each service has a user of its own, named after it, what one says counts only from its own user. A
development system has one user for all: there is nobody to tell apart.
"""

from dataclasses import dataclass


class SenderRefusedError(Exception):
    """The broker vouches for another sender than the producer, or for none. Names the producer only."""

    def __init__(self, producer: str) -> None:
        super().__init__(f"not sent by {producer}'s user")


@dataclass(frozen=True)
class Senders:
    """`suffix` is what users' names have behind the service's; None where users aren't the services' own."""

    suffix: str | None
    takes_unnamed: bool = False

    @classmethod
    def seen_by(cls, own_user: str | None, service: str, *, takes_unnamed: bool = False) -> "Senders":
        """Derive the others' users from one's own: `patients`, or `patients-staging` beside other deployments."""
        if own_user is None or not own_user.startswith(service):
            return cls(None)
        suffix = own_user.removeprefix(service)
        return cls(suffix if suffix[:1] in {"", "-"} else None, takes_unnamed)

    def require(self, producer: str, sender: str | None) -> None:
        """Raises SenderRefusedError."""
        if self.suffix is None or (sender is None and self.takes_unnamed):
            return
        if sender != f"{producer}{self.suffix}":
            raise SenderRefusedError(producer)
