"""Intent -> call -> result: queued messages go out, each call between two transactions.

A claim leases the message by the database's clock, notes that a call is open, and commits; the vendor is
called; what it answered takes effect in a transaction of its own. No vendor of messages knows idempotency
keys, so a call without an answer (a time-out, our own death) is first left to the vendor's status
callbacks, which carry our message id. Only when the grace has passed without one is it repeated, once:
a patient rather gets a reminder twice than never, and a third unknown outcome means somebody must look.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import httpx
import structlog
from clinic_shared import metrics
from clinic_shared.audit import Action, AuditEntry, Outcome
from clinic_shared.crash import crash_point
from clinic_shared.database import Transaction
from clinic_shared.errors import TransferNotAllowedError
from clinic_shared.health import Health
from clinic_shared.lookout import Lookout
from clinic_shared.loops import keep_running
from clinic_shared.service import Runtime
from prometheus_client import Counter

from clinic_notifications import codes, fallback, links, statuses, store, templates
from clinic_notifications.channels import Accepted, Adapter, Answer, Letter, Refused, Unavailable, Unknown
from clinic_notifications.channels.postmark import Postmark
from clinic_notifications.channels.twilio import Twilio
from clinic_notifications.channels.whatsapp import WhatsApp
from clinic_notifications.domain import (
    Channel,
    Failure,
    Message,
    MessageStatus,
    Recipient,
    TemplateInvalidError,
    pick_channel,
)
from clinic_notifications.events import message_event
from clinic_notifications.settings import NotificationSettings
from clinic_notifications.wording import Place, Template, fields_of, render

log = structlog.get_logger()

POLL_SECONDS = 0.2
_DUE = "SELECT 1 FROM message WHERE status = 'queued' AND next_attempt_at <= now()"
CALLS_AT_ONCE = 8
MAX_ATTEMPTS = 10
MAX_UNKNOWN_OUTCOMES = 2
PATIENCE = timedelta(minutes=10)
"""How long a message waits for the events that bring its patient's address or its centre's name."""
FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 900.0

CALLS = Counter(
    "clinic_message_calls_total",
    "Calls to messaging vendors",
    ["channel", "outcome"],
    registry=metrics.REGISTRY,
)


class Vendors:
    """The network's one identity at each vendor."""

    def __init__(
        self, adapters: Mapping[Channel, Adapter], abroad: Mapping[Channel, str] | None = None
    ) -> None:
        """`abroad` are the channels on which data would go where they may not, with the countries."""
        self.adapters = adapters
        self.abroad = abroad or {}

    @classmethod
    def connect(cls, http: httpx.AsyncClient, settings: NotificationSettings) -> "Vendors":
        return cls(
            {
                Channel.WHATSAPP: WhatsApp(http, settings),
                Channel.SMS: Twilio(http, settings),
                Channel.EMAIL: Postmark(http, settings),
            },
            abroad=cls.abroad_of(settings),
        )

    @staticmethod
    def abroad_of(settings: NotificationSettings) -> dict[Channel, str]:
        countries = {
            Channel.WHATSAPP: settings.whatsapp_country,
            Channel.SMS: settings.twilio_country,
            Channel.EMAIL: settings.postmark_country,
        }
        return {channel: one for channel, one in countries.items() if not settings.may_send_to(one)}


async def send_messages(runtime: Runtime, stop: asyncio.Event) -> None:
    """Send what is due, until told to stop."""
    health = Health.of(runtime)
    sender = Sender(runtime)
    await keep_running("sending", stop, lambda: sender.run(stop, health), health)


class Sender:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._duty = Lookout.of(runtime).duty("sending", _DUE, every_seconds=POLL_SECONDS)
        settings = cast("NotificationSettings", runtime.settings)
        self._lease = timedelta(seconds=settings.unknown_outcome_grace_seconds)

    async def run(self, stop: asyncio.Event, health: Health) -> None:
        """Keep up to eight calls going; a slow vendor or a bad message holds up nobody else."""
        calls: set[asyncio.Task[None]] = set()
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                claimed = await self._claim(CALLS_AT_ONCE - len(calls))
                health.report("sending", None)
                calls |= {asyncio.create_task(self._send(message_id)) for message_id in claimed}
                if not claimed and not calls:
                    await self._duty.wait(stop)
                elif not claimed:
                    await asyncio.wait(
                        {stopping, *calls}, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED
                    )
                calls = {call for call in calls if not call.done()}
        finally:
            stopping.cancel()
            await asyncio.gather(*calls)

    async def send_due(self) -> int:
        """Send everything that is due now; returns how many messages were taken up."""
        sent = 0
        while claimed := await self._claim(CALLS_AT_ONCE):
            await asyncio.gather(*(self._send(message_id) for message_id in claimed))
            sent += len(claimed)
        return sent

    async def _claim(self, limit: int) -> list[UUID]:
        if limit <= 0:
            return []
        async with self._runtime.database.transaction() as tx:
            return await store.claim_due(tx, limit=limit, lease=self._lease)

    async def _send(self, message_id: UUID) -> None:
        vendors = self._runtime.get(Vendors)
        try:
            async with self._runtime.database.transaction() as tx:
                letter = await _prepare(tx, message_id, vendors.abroad)
            if letter is None:
                return
            adapter = vendors.adapters[letter.channel]
            answer = await adapter.send(letter)
            CALLS.labels(channel=letter.channel.value, outcome=type(answer).__name__.lower()).inc()
            crash_point("message.call.after")
            async with self._runtime.database.transaction() as tx:
                await _take_answer(tx, letter, adapter.provider, answer)
        except Exception as error:  # one message's failure never stops the others
            CALLS.labels(channel="none", outcome="error").inc()
            log.warning("message_not_sent", message_id=message_id, exc_info=error)


async def _prepare(tx: Transaction, message_id: UUID, abroad: Mapping[Channel, str]) -> Letter | None:
    """Make a message ready for its vendor, or settle it without a call."""
    message = await store.lock_message(tx, message_id)
    if message is None or message.status is not MessageStatus.QUEUED:
        return None
    if await _is_settled(tx, message):
        return None
    recipient = await store.find_recipient(tx, message)
    place = await store.find_place(tx, centre_id=message.centre_id, department_id=message.department_id)
    if (recipient is None or place is None) and tx.now - message.due_at < PATIENCE:
        await store.try_again(tx, message_id, delay=timedelta(seconds=0.5), error="reference-not-yet-known")
        return None
    if recipient is None:
        await _fail(tx, message, Failure.NO_ADDRESS)
        return None
    if not recipient.may_be_written_to:
        await store.save_message(tx, message.cancelled())
        return None
    return await _address(tx, message, recipient, place or Place(), abroad)


async def _is_settled(tx: Transaction, message: Message) -> bool:
    """Tell whether a message has outlived its use, its subject or the attempts it has."""
    if message.useful_until_at is not None and message.useful_until_at <= tx.now:
        await store.save_message(tx, message.expired())
        return True
    if message.about.type == "appointment":
        appointment = await store.find_appointment(tx, message.about.id)
        if appointment is not None and not appointment.makes_sense(message.purpose, message.facts):
            await store.save_message(tx, message.cancelled())
            return True
    attempts, unknown_outcomes = await store.attempts_of(tx, message.message_id)
    if unknown_outcomes >= MAX_UNKNOWN_OUTCOMES or attempts > MAX_ATTEMPTS:
        await _fail(tx, message, Failure.PROVIDER_ERROR)
        return True
    return False


async def _address(
    tx: Transaction, message: Message, recipient: Recipient, place: Place, abroad: Mapping[Channel, str]
) -> Letter | None:
    tried = [channel for channel in await store.channels_tried(tx, message) if channel is not message.channel]
    channel = pick_channel(recipient, message.purpose, now=tx.now, tried=tried)
    while isinstance(channel, Channel) and channel in abroad:
        _record_blocked(tx, message, channel, abroad[channel])
        tried.append(channel)
        channel = pick_channel(recipient, message.purpose, now=tx.now, tried=tried)
        if channel is Failure.NO_ADDRESS:
            channel = Failure.TRANSFER_NOT_ALLOWED
    if not isinstance(channel, Channel):
        await _fail(tx, message, channel)
        return None
    languages = [language for language in (recipient.language, place.language) if language]
    template = await templates.choose(tx, message, channel, languages)
    letter = None
    secret: links.Secret | codes.Code | None = None
    if template is not None:
        to = recipient.address(channel) or ""
        secret = await links.make_secret(tx, message, channel) or await codes.make_code(tx, message, to)
        facts = secret.facts(message) if secret else message.facts
        letter = _letter(message, facts, template, to=to, place=place)
    if template is None or letter is None:
        await _fail(tx, replace(message, channel=channel), Failure.TEMPLATE_REJECTED)
        return None
    await store.save_message(
        tx,
        replace(
            message,
            channel=channel,
            language=template.language,
            template_id=template.template_id,
            recipient=letter.to,
            text=secret.hide(letter.text) if secret else letter.text,
        ),
    )
    await store.open_call(tx, message.message_id)
    return letter


def _letter(
    message: Message, facts: Mapping[str, Any], template: Template, *, to: str, place: Place
) -> Letter | None:
    try:
        rendered = render(template, fields_of(facts, place, template.language))
    except TemplateInvalidError:
        return None
    return Letter(
        message_id=message.message_id,
        channel=template.channel,
        to=to,
        language=template.language,
        subject=rendered.subject,
        text=rendered.text,
        template_name=template.vendor_name,
        parameters=rendered.parameters,
    )


async def _take_answer(tx: Transaction, letter: Letter, provider: str, answer: Answer) -> None:
    if isinstance(answer, Accepted):
        await statuses.lock_reference(tx, provider, answer.reference)
    message = await store.lock_message(tx, letter.message_id)
    if message is None or message.status is not MessageStatus.QUEUED:
        # A status callback was faster, and said more.
        return
    match answer:
        case Accepted(reference):
            await _record_sent(tx, message, provider, reference)
        case Refused(failure):
            await _fail(tx, message, failure)
        case Unavailable(code, retry_after_seconds):
            attempts, _ = await store.attempts_of(tx, message.message_id)
            delay = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(attempts - 1, 20))
            delay = max(delay, retry_after_seconds or 0)
            await store.try_again(tx, message.message_id, delay=timedelta(seconds=delay), error=code)
        case Unknown(code):
            log.warning(
                "message_outcome_unknown", message_id=message.message_id, channel=letter.channel.value
            )
            await store.note_error(tx, message.message_id, code)


def _record_blocked(tx: Transaction, message: Message, channel: Channel, country: str) -> None:
    tx.audit(
        AuditEntry(
            action=Action.EXECUTE,
            outcome=Outcome.DENIED,
            resource_type="Communication",
            resource_id=message.message_id,
            patient_id=message.patient_id,
            details={"channel": channel.value, "cause": TransferNotAllowedError.slug, "country": country},
        )
    )


async def _record_sent(tx: Transaction, message: Message, provider: str, reference: str) -> None:
    sent = message.sent(provider=provider, reference=reference, now=tx.now)
    tx.emit(message_event("message-sent", sent))
    tx.audit(
        AuditEntry(
            action=Action.EXECUTE,
            resource_type="Communication",
            resource_id=sent.message_id,
            patient_id=sent.patient_id,
            details={"channel": sent.channel.value, "provider": provider},
        )
    )
    await store.save_message(tx, sent)
    await statuses.take_waiting_reports(tx, sent)


async def _fail(tx: Transaction, message: Message, failure: Failure) -> None:
    failed = message.failed(failure, tx.now)
    await store.save_message(tx, failed)
    tx.emit(message_event("message-failed", failed))
    if failure is Failure.TRANSFER_NOT_ALLOWED:
        # Every channel was looked at already.
        await links.give_up(tx, failed)
    else:
        await fallback.try_next_channel(tx, failed)
