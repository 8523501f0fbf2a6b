"""Received messages as the API shows them, and what it takes."""

import base64
from datetime import date, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, Base64Bytes, BaseModel, ConfigDict, Field, model_validator

from clinic_shared.inbound.listing import Wanted
from clinic_shared.inbound.selection import Chosen
from clinic_shared.paging import Page

State = Literal["received", "processed", "parked", "discarded", "superseded"]
Reason = Annotated[
    str, Field(min_length=3, max_length=500, description="kept, shown and audited: no patient data here")
]
MOST_AT_ONCE = 1000
_ID = "019bc9c2-56c0-7000-8000-000000000001"


def _example(example: dict[str, Any]) -> ConfigDict:
    # A mistyped restriction is refused, and not taken for none.
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [example]})


class InboundMessage(BaseModel):
    """What a sender gave us, without its content."""

    id: UUID
    interface: str
    sender: str
    state: State
    content_type: str
    size_bytes: int
    digest: str = Field(description="SHA-256 of the bytes, hexadecimal")
    via: Literal["database", "queue"] = Field(description="what made it durable before it was answered")
    received_at: datetime
    durable_at: datetime | None
    processed_at: datetime | None
    attempts: int
    duplicates: int = Field(description="how often the same bytes came again, and got the same answer")
    cause: str | None
    last_error: str | None
    corrects: UUID | None = Field(description="the message that this is a corrected copy of")
    superseded_by: UUID | None = Field(description="the corrected copy that stands for this message")

    @classmethod
    def of(cls, row: Any) -> Self:
        known = {name: row._mapping[name] for name in cls.model_fields if name in row._mapping}  # noqa: SLF001  # public, by its documentation
        return cls(**{**known, "digest": bytes(row.digest).hex()})


class ParkedGroup(BaseModel):
    """Parked messages that failed alike. Name `count` and `last_id` when deciding about them."""

    cause: str
    interface: str
    error: str
    count: int
    first_received_at: datetime
    last_received_at: datetime
    last_id: UUID


class MessageDecision(BaseModel):
    """A request to let messages be, which needs a second person."""

    decision_id: UUID
    state: Literal["pending", "approved", "rejected"]
    count: int
    cause: str | None
    reason: str
    requested_by: UUID
    requested_at: datetime
    expires_at: datetime
    decided_by: UUID | None
    decided_at: datetime | None
    decision_reason: str | None


class InboundMessages(Page[InboundMessage]):
    """A page of messages, the newest first; all that is parked, by cause; the latest decisions."""

    groups: list[ParkedGroup]
    decisions: list[MessageDecision]


class MessageFilter(BaseModel):
    interface: str | None = Field(default=None, max_length=100)
    sender: str | None = Field(default=None, max_length=200, description="as listed, or a partner's id")
    state: State | None = None
    cause: str | None = Field(default=None, max_length=64)
    reference: str | None = Field(default=None, max_length=200, description="control id (MSH-10), or digest")
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None

    def wanted(self) -> Wanted:
        return Wanted(**self.model_dump())


class MessageFate(BaseModel):
    disposition: str
    reason: str | None


class MessageStep(BaseModel):
    at: datetime | None
    step: str
    error: str | None
    decided_by: UUID | None
    reason: str | None
    other_id: UUID | None


class InboundMessagePage(InboundMessage):
    """All about one message but its content."""

    envelope: dict[str, Any] = Field(description="what was read before the answer; identifiers, no names")
    fates: list[MessageFate] = Field(description="what became of each part, such as a patient group")
    history: list[MessageStep]


class RevealedMessage(BaseModel):
    """The bytes as they came; `text` where they are UTF-8."""

    body: str = Field(description="Base64")
    text: str | None
    answer: str | None = Field(description="Base64; what the sender was told")

    @classmethod
    def of(cls, body: bytes, answer: bytes | None) -> Self:
        try:
            text = body.decode()
        except UnicodeDecodeError:
            text = None
        told = None if answer is None else base64.b64encode(answer).decode()
        return cls(body=base64.b64encode(body).decode(), text=text, answer=told)


class MessageSelection(BaseModel):
    """Given messages, or all parked ones of a cause as they were seen: so many, up to that id."""

    model_config = _example({"ids": [_ID]})

    ids: list[UUID] = Field(default_factory=list, max_length=MOST_AT_ONCE)
    cause: str | None = Field(default=None, min_length=1, max_length=64)
    expected_count: int | None = Field(default=None, ge=1)
    up_to_id: UUID | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if bool(self.ids) == (self.cause is not None):
            raise ValueError("name ids or a cause: nothing named would mean everything")
        return self

    def chosen(self) -> Chosen:
        return Chosen(
            ids=self.ids, cause=self.cause, expected_count=self.expected_count, up_to_id=self.up_to_id
        )


class MessageReprocessRequest(MessageSelection):
    model_config = _example({"cause": "0123456789abcdef", "expected_count": 12, "up_to_id": _ID})

    reason: Reason | None = None


class MessageDiscardRequest(MessageSelection):
    model_config = _example({"ids": [_ID], "reason": "Sent by a test installation"})

    reason: Reason


class MessageCorrectionRequest(BaseModel):
    """The whole message as it should have been, in the characters of the original (Base64)."""

    model_config = _example({"body": "TVNIfF5+XCZ8", "reason": "The laboratory wrote the unit wrongly"})

    body: Base64Bytes
    reason: Reason


class MessageCount(BaseModel):
    count: int


class MessageDiscardAsked(BaseModel):
    decision_id: UUID


class CorrectedMessage(BaseModel):
    copy_id: UUID


class RehearsedMessage(BaseModel):
    """What would become of one message."""

    item_id: UUID
    would: Literal["processed", "failed"]
    error: str | None
    fates: dict[str, int]
    events: dict[str, int] = Field(description="what would be published, by type")


class MessageDryRun(BaseModel):
    items: list[RehearsedMessage]


class LedgerDay(BaseModel):
    """One interface, partner and day (UTC, of receipt): `answered` is the sum of the rest when `balanced`."""

    interface: str
    partner: str
    day: date
    answered: int
    applied: int
    parked: int
    rejected: int
    superseded: int
    duplicate: int
    discarded: int
    in_flight: int
    balanced: bool
