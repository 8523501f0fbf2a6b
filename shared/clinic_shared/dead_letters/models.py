"""Dead letters as the API shows them, and what it takes."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from clinic_shared.dead_letters import rehearsal
from clinic_shared.dead_letters.corrections import Body
from clinic_shared.dead_letters.runs import DEFAULT_RATE_PER_SECOND
from clinic_shared.dead_letters.selection import Filter, Selection
from clinic_shared.paging import Page

State = Literal["held", "parked", "discarded", "superseded"]
ItemState = Literal["waiting", "applied", "duplicate", "failed", "skipped", "cancelled"]
LetterNumber = Annotated[int, Field(ge=1, lt=2**63)]
"""PostgreSQL's bigint: a number beyond it can't be anybody's."""
Reason = Field(min_length=3, max_length=500, description="kept, shown and audited: no patient data here")


class DeadLetter(BaseModel):
    """A message that could not take effect, without its body."""

    id: int
    event_id: UUID
    partition_key: UUID
    type: str
    queue: str
    state: State
    cause: str
    error: str
    attempt: int
    next_attempt_at: datetime | None
    first_failed_at: datetime
    last_failed_at: datetime
    decided_by: UUID | None
    decided_at: datetime | None
    reason: str | None
    run_id: UUID | None = Field(description="the redrive run that it waits in")
    corrects: int | None = Field(description="the message that this is a corrected copy of")
    superseded_by: int | None = Field(description="the corrected copy that stands for this message")


class DeadLetterGroup(BaseModel):
    """Messages that failed alike: same consumer, event type, error and place in the code."""

    cause: str
    type: str
    queue: str
    error: str
    count: int
    held: int
    parked: int
    redriving: int
    discarded: int
    superseded: int
    selectable: int = Field(description="parked, and nobody has decided about them")
    first_seen_at: datetime
    last_seen_at: datetime
    example_id: int
    last_id: int = Field(description="the newest message of the group: name it as `up_to_id`")


class Run(BaseModel):
    """A redrive run; the counts of what became of its messages add up to `total`."""

    run_id: UUID
    state: Literal["running", "finished", "cancelled"]
    cause: str | None
    total: int
    waiting: int
    applied: int
    duplicate: int
    failed: int
    skipped: int
    cancelled: int
    rate_per_second: int
    reason: str | None
    requested_by: UUID
    requested_at: datetime
    cancelled_by: UUID | None
    finished_at: datetime | None


class RunItem(BaseModel):
    held_id: int
    event_id: UUID
    state: ItemState
    error: str | None
    settled_at: datetime | None


class RunItems(Page[RunItem]):
    """A run and a page of its messages."""

    run: Run


class Decision(BaseModel):
    """A discard that needs a second person."""

    decision_id: UUID
    state: Literal["pending", "approved", "rejected", "expired"]
    count: int
    cause: str | None
    reason: str
    requested_by: UUID
    requested_at: datetime
    expires_at: datetime
    decided_by: UUID | None
    decided_at: datetime | None
    decision_reason: str | None


class DeadLetters(Page[DeadLetter]):
    """A page of messages, all that wait by cause, the runs that go on and the decisions to be taken."""

    groups: list[DeadLetterGroup]
    runs: list[Run]
    decisions: list[Decision]


class Attempt(BaseModel):
    attempted_at: datetime
    duration_ms: int | None
    outcome: Literal["failed", "applied", "duplicate"]
    cause: str | None
    error: str | None
    release: str
    run_id: UUID | None


class ShownPayload(BaseModel):
    readable: bool
    data: dict[str, Any] = Field(description="fields that the contract declares; what breaks it is masked")
    private_fields: list[str] = Field(description="names only; `reveal` shows the content")
    undeclared: int = Field(description="fields that the contract doesn't declare")


class SchemaResult(BaseModel):
    matches: bool | None = Field(description="null when there is no contract of this event")
    problems: list[str]


class DeadLetterPage(DeadLetter):
    """All about one message but its private content."""

    headers: dict[str, str | int]
    payload: ShownPayload
    schema_check: SchemaResult
    attempts: list[Attempt]
    in_inbox_at: datetime | None = Field(description="when it took effect here, if it did")
    before: list[DeadLetter] = Field(description="earlier messages of its key that are kept")
    after: list[DeadLetter] = Field(description="later ones")
    runs: list[UUID]


class Revealed(BaseModel):
    """The content of a message; `text` when it isn't a JSON event."""

    data: dict[str, Any] | None
    private: dict[str, Any] | None
    text: str | None


class Asked(BaseModel):
    """What is asked for in a body: a mistyped restriction is refused, and not taken for none."""

    model_config = ConfigDict(extra="forbid")


class DeadLetterSelection(Asked):
    """Given messages, or all parked ones of a cause as they were seen: so many, up to that id."""

    ids: list[LetterNumber] = Field(default_factory=list, max_length=1000)
    cause: str | None = Field(default=None, min_length=1, max_length=64)
    type: str | None = Field(default=None, max_length=200)
    queue: str | None = Field(default=None, max_length=200)
    expected_count: int | None = Field(default=None, ge=1, description="`selectable` of the group as seen")
    up_to_id: LetterNumber | None = Field(default=None, description="`last_id` of the group as seen")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if bool(self.ids) == (self.cause is not None):
            raise ValueError("name ids or a cause: nothing named would mean everything")
        return self

    def selection(self) -> Selection:
        return Selection(
            ids=self.ids,
            cause=self.cause,
            type=self.type,
            queue=self.queue,
            expected_count=self.expected_count,
            up_to_id=self.up_to_id,
        )


class _Decided(DeadLetterSelection):
    @model_validator(mode="after")
    def _seen(self) -> Self:
        if self.cause is not None and self.expected_count is None:
            raise ValueError("say how many of the cause were seen")
        return self


class RedriveRequest(_Decided):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"cause": "0123456789abcdef", "expected_count": 12, "up_to_id": 345, "rate_per_second": 20}
            ]
        }
    )

    rate_per_second: int = Field(default=DEFAULT_RATE_PER_SECOND, ge=1, le=1000)
    discarded: bool = Field(default=False, description="given messages that were discarded are meant too")
    reason: str | None = Field(default=None, min_length=3, max_length=500)

    def selection(self) -> Selection:
        return replace(super().selection(), discarded=self.discarded)


class DryRunRequest(DeadLetterSelection):
    model_config = ConfigDict(json_schema_extra={"examples": [{"ids": [344, 345]}]})

    after_id: int = Field(default=0, ge=0, lt=2**63, description="`last_id` of the answer before")

    def chosen(self) -> Filter:
        return Filter(
            ids=self.ids,
            cause=self.cause,
            type=self.type,
            queue=self.queue,
            state=None if self.ids else "parked",
            up_to_id=self.up_to_id,
        )


class DryRunOutcome(BaseModel):
    held_id: int
    event_id: UUID
    outcome: Literal["applied", "duplicate", "failed", "skipped"]
    error: str | None


class DryRun(BaseModel):
    """What would become of each message now; at most 200 in one answer."""

    would_succeed: bool
    applied: int
    duplicate: int
    failed: int
    skipped: int
    outcomes: list[DryRunOutcome]
    left: int = Field(description="messages of the selection beyond these")
    last_id: int

    @classmethod
    def of(cls, rehearsed: rehearsal.Rehearsal) -> Self:
        found = [one.outcome for one in rehearsed.outcomes]
        return cls(
            would_succeed=not {"failed", "skipped"} & set(found),
            applied=found.count("applied"),
            duplicate=found.count("duplicate"),
            failed=found.count("failed"),
            skipped=found.count("skipped"),
            outcomes=[DryRunOutcome(**vars(one)) for one in rehearsed.outcomes],
            left=rehearsed.left,
            last_id=max((one.held_id for one in rehearsed.outcomes), default=0),
        )


class ReasonGiven(Asked):
    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "Agreed with the data steward"}]})

    reason: str = Reason


class DiscardRequest(_Decided):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"ids": [344, 345], "reason": "Sent by a test installation"}]}
    )

    reason: str = Reason


class Decided(BaseModel):
    """How many messages are discarded; `decision_id` when a second person must agree first."""

    count: int
    decision_id: UUID | None


class CorrectedBody(Asked):
    data: dict[str, Any]
    private: dict[str, Any] | None = None


class CorrectionRequest(Asked):
    """A JSON merge patch (RFC 7396) of `{data, private}`, or the whole of it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"patch": {"data": {"currency": "RUB"}}, "reason": "The currency was left out"}]
        }
    )

    patch: dict[str, Any] | None = None
    body: CorrectedBody | None = None
    reason: str = Reason

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.patch is None) == (self.body is None):
            raise ValueError("give a patch or a body")
        return self

    def whole(self) -> Body | None:
        return Body(data=self.body.data, private=self.body.private) if self.body is not None else None


class Corrected(BaseModel):
    copy_id: int


class LetterFilter(BaseModel):
    """Which messages a list shows."""

    cause: str | None = Field(default=None, max_length=64)
    state: State | None = None
    type: str | None = Field(default=None, max_length=200)
    queue: str | None = Field(default=None, max_length=200)
    key: UUID | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
