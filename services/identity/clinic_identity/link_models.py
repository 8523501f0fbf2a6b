"""What clients send and get about links to choose a password: the same for staff and for patients."""

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from clinic_identity.access_links import Link
from clinic_identity.fields import Request


class AccessLinkRequest(Request):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"deliver": "hand-over"}, {"deliver": "message"}]}
    )

    deliver: Annotated[
        Literal["hand-over", "message"] | None,
        Field(
            description="Shown to the caller, or sent to its owner by mail or text message; by default shown,"
            " unless this installation only sends them"
        ),
    ] = None


def wants_message(body: AccessLinkRequest | None) -> bool | None:
    """Return whether a link is to be sent; None leaves it to the installation."""
    return None if body is None or body.deliver is None else body.deliver == "message"


class AccessLinkResponse(BaseModel):
    url: Annotated[
        str | None,
        Field(description="Opens a page that asks for a new password; works once. Null when it is sent"),
    ]
    expires_at: datetime
    request_id: Annotated[
        UUID | None, Field(description="With a link that is sent: read the same path to see how far it got")
    ] = None

    @classmethod
    def of(cls, link: Link) -> Self:
        return cls(url=link.url, expires_at=link.expires_at, request_id=link.request_id)


class SentLinkResponse(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    request_id: UUID
    purpose: Literal["invitation", "reset"]
    state: Annotated[
        Literal["requested", "sending", "undeliverable"],
        Field(description="`requested` until notifications takes it up; `undeliverable` on every channel"),
    ]
    channel: str | None
    failure_code: Annotated[
        str | None, Field(description="Such as `no-address`: nobody has said how they are reached")
    ]
    requested_at: datetime
    expires_at: datetime
