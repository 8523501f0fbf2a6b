"""A message's life, who may be reached how, and when reminders are due: pure.

A message only ever moves forward (contracts/taxonomy/statuses.yaml), however late, often or disordered
a vendor's callbacks come.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from clinic_shared.errors import DomainError


class Channel(StrEnum):
    WHATSAPP = "whatsapp"
    SMS = "sms"
    EMAIL = "email"


class Purpose(StrEnum):
    CONFIRMATION = "appointment-confirmation"
    CHANGE = "appointment-change"
    CANCELLATION = "appointment-cancellation"
    REMINDER = "appointment-reminder"
    REFERRAL_UPDATE = "referral-update"
    RESULT_READY = "result-ready"
    INVOICE = "invoice"
    PAYMENT_RECEIVED = "payment-received"
    CRITICAL_RESULT = "critical-result"
    """To a member of staff, as the next one is."""
    ANSWER_NEEDED = "answer-needed"
    INVITATION = "account-invitation"
    """About one's own login, as the next ones are: whoever declines messages still gets it."""
    PASSWORD_RESET = "password-reset"  # noqa: S105  # a purpose
    NEW_DEVICE = "new-device"
    PASSWORD_CHANGED = "password-changed"  # noqa: S105  # a purpose
    SIGN_IN_CODE = "sign-in-code"
    """By SMS alone, whatever channels somebody wants: the number that it goes to is what it proves."""


ABOUT_LOGINS = frozenset(
    {Purpose.INVITATION, Purpose.PASSWORD_RESET, Purpose.NEW_DEVICE, Purpose.PASSWORD_CHANGED}
)


class MessageStatus(StrEnum):
    QUEUED = "queued"
    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Failure(StrEnum):
    UNDELIVERABLE = "undeliverable"
    OPTED_OUT = "opted-out"
    TEMPLATE_REJECTED = "template-rejected"
    PROVIDER_ERROR = "provider-error"
    NO_ADDRESS = "no-address"
    TRANSFER_NOT_ALLOWED = "transfer-not-allowed"


class TemplateInvalidError(DomainError):
    """The wording can't be rendered: a syntax error, or a field that messages don't have."""

    slug = "template-invalid"
    title = "The template can't be rendered"
    status = 422
    fix = "Use `{{ field }}` with the fields that the problem lists."


class TemplateVersionTakenError(DomainError):
    """Each change is a new version of the template, and theirs came first."""

    slug = "template-version-taken"
    title = "Someone else changed the template at the same time"
    fix = "Read the template again and send your change with that version's ETag as `If-Match`."


DEFAULT_CHANNELS = (Channel.WHATSAPP, Channel.SMS, Channel.EMAIL)
DEFAULT_LANGUAGE = "ru"

_PROGRESS = (MessageStatus.QUEUED, MessageStatus.SENT, MessageStatus.DELIVERED, MessageStatus.READ)
_CAN_FAIL = {MessageStatus.QUEUED, MessageStatus.SENT}


def steps_towards(current: MessageStatus, told: MessageStatus) -> Sequence[MessageStatus]:
    """Return the statuses to pass on the way to what a vendor told; none when it is no news."""
    if told is MessageStatus.FAILED:
        return (MessageStatus.FAILED,) if current in _CAN_FAIL else ()
    if current not in _PROGRESS or told not in _PROGRESS:
        return ()
    return _PROGRESS[_PROGRESS.index(current) + 1 : _PROGRESS.index(told) + 1]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a message is about, and the version of it that it tells of."""

    type: str
    id: UUID
    version: int


@dataclass(frozen=True, kw_only=True)
class Message:
    """To a patient or to a member of staff."""

    message_id: UUID
    version: int = 1
    status: MessageStatus = MessageStatus.QUEUED
    patient_id: UUID | None = None
    staff_id: UUID | None = None
    channel: Channel
    purpose: Purpose
    language: str
    centre_id: UUID | None
    department_id: UUID | None
    about: Subject
    also_about: Sequence[Subject] = ()
    """What joined it while it waited; filled where a message is shown."""
    occurrence: str = ""
    step: int = 0
    facts: Mapping[str, Any]
    template_id: UUID | None = None
    recipient: str | None = None
    text: str | None = None
    queued_at: datetime
    send_at: datetime
    useful_until_at: datetime | None
    sent_at: datetime | None = None
    delivered_at: datetime | None = None
    read_at: datetime | None = None
    failed_at: datetime | None = None
    failure_code: str | None = None
    provider: str | None = None
    provider_reference: str | None = None

    @property
    def due_at(self) -> datetime:
        """From when on it could be sent: a reminder may be queued late, a message may have waited for others."""
        return max(self.queued_at, self.send_at)

    def addressed_to(self, recipient: "Recipient") -> "Message":
        channel = pick_channel(recipient, self.purpose, now=self.queued_at)
        return replace(
            self,
            channel=channel if isinstance(channel, Channel) else self.channel,
            language=recipient.language or self.language,
        )

    def sent(self, *, provider: str, reference: str, now: datetime) -> "Message":
        """Accepted by the vendor, which is not delivery."""
        return self._moved(MessageStatus.SENT, sent_at=now, provider=provider, provider_reference=reference)

    def delivered(self, now: datetime) -> "Message":
        return self._moved(MessageStatus.DELIVERED, delivered_at=now)

    def read(self, now: datetime) -> "Message":
        return self._moved(MessageStatus.READ, read_at=now)

    def failed(self, code: Failure, now: datetime) -> "Message":
        return self._moved(MessageStatus.FAILED, failed_at=now, failure_code=code.value)

    def cancelled(self) -> "Message":
        return self._moved(MessageStatus.CANCELLED)

    def expired(self) -> "Message":
        return self._moved(MessageStatus.EXPIRED)

    def on_channel(self, channel: Channel, *, message_id: UUID, now: datetime) -> "Message":
        """Return the same message for another channel, after this one failed."""
        return Message(
            message_id=message_id,
            patient_id=self.patient_id,
            staff_id=self.staff_id,
            channel=channel,
            purpose=self.purpose,
            language=self.language,
            centre_id=self.centre_id,
            department_id=self.department_id,
            about=self.about,
            occurrence=self.occurrence,
            step=self.step + 1,
            facts=self.facts,
            queued_at=now,
            send_at=now,
            useful_until_at=self.useful_until_at,
        )

    def _moved(self, status: MessageStatus, **changes: Any) -> "Message":
        return replace(self, version=self.version + 1, status=status, **changes)


@dataclass(frozen=True, kw_only=True)
class Consent:
    status: str
    channel: str | None
    expires_at: datetime | None

    def forbids(self, channel: Channel, now: datetime) -> bool:
        concerns = self.channel is None or self.channel == channel.value
        over = self.expires_at is not None and self.expires_at <= now
        return concerns and (self.status == "withdrawn" or over)


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """How a patient wants to be written to; without a choice of theirs, the network's order."""

    patient_id: UUID
    version: int = 0
    channels: Sequence[Channel] = DEFAULT_CHANNELS
    opted_out: Sequence[Purpose] = ()


@dataclass(frozen=True, kw_only=True)
class Recipient:
    """A person as far as writing to them needs."""

    status: str
    phones: Sequence[str]
    emails: Sequence[str]
    language: str | None
    channels: Sequence[Channel] = DEFAULT_CHANNELS
    opted_out: Sequence[Purpose] = ()
    consents: Sequence[Consent] = ()

    @property
    def may_be_written_to(self) -> bool:
        return self.status not in {"deceased", "merged"}

    def address(self, channel: Channel) -> str | None:
        addresses = self.emails if channel is Channel.EMAIL else self.phones
        return addresses[0] if addresses else None

    def channels_for(self, purpose: Purpose, now: datetime) -> list[Channel]:
        """Return the channels the patient hasn't refused, in their order; without regard to addresses."""
        if purpose is Purpose.SIGN_IN_CODE:
            return [Channel.SMS]
        if purpose in self.opted_out and purpose not in ABOUT_LOGINS:
            return []
        return [
            channel
            for channel in self.channels
            if not any(consent.forbids(channel, now) for consent in self.consents)
        ]


def pick_channel(
    recipient: Recipient, purpose: Purpose, *, now: datetime, tried: Iterable[Channel] = ()
) -> Channel | Failure:
    """Return the first channel that is wanted, has an address and wasn't tried; or why there is none."""
    wanted = recipient.channels_for(purpose, now)
    if not wanted:
        return Failure.OPTED_OUT
    already = set(tried)
    for channel in wanted:
        if channel not in already and recipient.address(channel):
            return channel
    return Failure.NO_ADDRESS


@dataclass(frozen=True, kw_only=True)
class Appointment:
    appointment_id: UUID
    version: int
    status: str
    patient_id: UUID
    centre_id: UUID
    department_id: UUID
    starts_at: datetime
    time_zone: str
    service_name: str | None

    @property
    def stands(self) -> bool:
        return self.status in {"booked", "confirmed"}

    def facts(self) -> dict[str, Any]:
        return {
            "starts_at": self.starts_at.isoformat(),
            "time_zone": self.time_zone,
            "service": self.service_name,
        }

    def makes_sense(self, purpose: Purpose, facts: Mapping[str, Any]) -> bool:
        """Tell whether a message written earlier still says what is true."""
        if purpose is Purpose.CANCELLATION:
            return self.status == "cancelled"
        return self.stands and datetime.fromisoformat(facts["starts_at"]) == self.starts_at


REMINDERS = {"24h": timedelta(hours=24), "2h": timedelta(hours=2)}


def reminders_to_come(starts_at: datetime, now: datetime) -> dict[str, datetime]:
    """Return when to remind. What would be due by now is covered by the message that is sent now."""
    return {name: starts_at - before for name, before in REMINDERS.items() if starts_at - before > now}


def is_overtaken(occurrence: str, starts_at: datetime, now: datetime) -> bool:
    """Tell whether a nearer reminder is due too: after an outage one of them is enough."""
    before = REMINDERS[occurrence]
    return any(other < before and starts_at - other <= now for other in REMINDERS.values())
