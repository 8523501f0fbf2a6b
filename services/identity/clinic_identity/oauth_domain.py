"""The rules of OAuth2 clients, pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from clinic_shared.errors import DomainError


class ClientKind(StrEnum):
    LAB = "lab"
    APP = "app"


class ClientIdTakenError(DomainError):
    """A client id names one client for ever."""

    slug = "client-id-taken"
    title = "Another client has this client_id"
    fix = "Choose another client_id, or leave it out."


@dataclass(frozen=True, kw_only=True)
class Client:
    """`id` is the lab's id in every service. A secret that was replaced works until it expires."""

    id: UUID
    version: int
    kind: ClientKind
    client_id: str
    name: str
    scopes: tuple[str, ...]
    network: bool
    centre_ids: tuple[UUID, ...]
    secret_digest: str
    previous_secret_digest: str | None
    previous_secret_expires_at: datetime | None
    active: bool
    registered_at: datetime
    changed_at: datetime | None
    tokens_valid_from: datetime
    jwks: dict[str, Any] | None = None
    """Public keys of its own; who has any may sign instead of sending the secret."""

    def secret_digests(self, now: datetime) -> list[str]:
        """Return the digests of the secrets that work now, the newest first."""
        digests = [self.secret_digest]
        if (
            self.previous_secret_digest is not None
            and self.previous_secret_expires_at is not None
            and now < self.previous_secret_expires_at
        ):
            digests.append(self.previous_secret_digest)
        return digests
