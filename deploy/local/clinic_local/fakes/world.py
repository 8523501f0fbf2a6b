"""What the fakes remember: messages received, faults to act out, and how callbacks misbehave.

Misbehaviour is counted, not random: the same calls give the same callbacks.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, TypeVar
from uuid import uuid4

from pydantic import BaseModel, Field

from clinic_local.fakes.callbacks import CallbackSender
from clinic_local.fakes.settings import FakesSettings

Vendor = Literal["whatsapp", "twilio", "postmark", "stripe", "yookassa", "razorpay", "atol", "laboratory"]
T = TypeVar("T")


class Received(BaseModel):
    """A message as its recipient would see it; `request` is the body the vendor got."""

    id: str
    vendor: Vendor
    channel: Literal["whatsapp", "sms", "email"]
    to: str
    received_at: datetime
    template: str | None = None
    language: str | None = None
    subject: str | None = None
    text: str
    request: dict[str, object]


class Fault(BaseModel):
    """What happens to the vendor's next `times` calls.

    Without `status` and `code` the call is only delayed; with `after_accepting` it takes effect first
    and the answer is what comes late: the caller can't know. A WhatsApp `code` that the vendor reports
    asynchronously comes as a `failed` status unless `status` is given.
    """

    vendor: Vendor
    times: int = Field(default=1, ge=1)
    status: int | None = Field(default=None, ge=400, le=599)
    code: str | None = None
    delay_seconds: float = Field(default=0, ge=0, le=120)
    after_accepting: bool = False
    retry_after_seconds: int | None = None


class Behaviour(BaseModel):
    """How callbacks are delivered from now on; 0 is never, n is every n-th series."""

    duplicate_every: int = Field(default=0, ge=0)
    reorder_every: int = Field(default=0, ge=0)
    read_receipts: bool = True


class World:
    def __init__(self, settings: FakesSettings) -> None:
        self.settings = settings
        self.callbacks = CallbackSender(settings)
        self.reset()

    def reset(self) -> None:
        self.callbacks.cancel_all()
        self.callbacks.log.clear()
        self.inbox: deque[Received] = deque(maxlen=10_000)
        self.faults: list[Fault] = []
        self.behaviour = Behaviour(
            duplicate_every=self.settings.fakes_duplicate_every,
            reorder_every=self.settings.fakes_reorder_every,
            read_receipts=self.settings.fakes_read_receipts,
        )
        self._series = 0

    def take_fault(self, vendor: Vendor) -> Fault | None:
        for fault in self.faults:
            if fault.vendor == vendor:
                fault.times -= 1
                if fault.times == 0:
                    self.faults.remove(fault)
                return fault
        return None

    def disturb(self, series: Sequence[T]) -> list[T]:
        """Return the callbacks of one series as this delivery will go: swapped, doubled or as they are."""
        self._series += 1
        result = list(series)
        if _every(self.behaviour.reorder_every, self._series):
            result.reverse()
        if _every(self.behaviour.duplicate_every, self._series):
            result = [item for item in result for _ in range(2)]
        return result


async def hold_before(fault: Fault | None) -> None:
    if fault is not None and not fault.after_accepting:
        await asyncio.sleep(fault.delay_seconds)


async def hold_after(fault: Fault | None) -> None:
    if fault is not None and fault.after_accepting:
        await asyncio.sleep(fault.delay_seconds)


def _every(n: int, count: int) -> bool:
    return n > 0 and count % n == 0


def now() -> datetime:
    return datetime.now(UTC)


def token(length: int = 24) -> str:
    return (uuid4().hex + uuid4().hex)[:length]
