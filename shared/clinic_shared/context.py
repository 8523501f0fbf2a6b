"""What a request or a message carries along: who, why, and the trace it belongs to."""

from dataclasses import dataclass, field
from uuid import UUID

from clinic_shared.events import Origin
from clinic_shared.ids import uuid7
from clinic_shared.principal import SYSTEM, Principal


@dataclass(frozen=True, kw_only=True)
class Context:
    """`correlation_id` ties a whole journey together; `causation_id` is the event that led here.

    `traceparent` is W3C Trace Context's header, handed on unchanged through events.
    """

    principal: Principal = SYSTEM
    correlation_id: UUID = field(default_factory=uuid7)
    causation_id: UUID | None = None
    traceparent: str | None = None
    origin: Origin = Origin.LIVE
    deadline: float | None = None
    """Of `time.monotonic`: from then on nobody waits for the answer."""
