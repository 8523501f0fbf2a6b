"""The way to RabbitMQ: connections that come back, and a publisher whose every message has an outcome.

Plain aio-pika connections, not its robust ones: what is lost is rebuilt from nothing by whoever needs
it. Publishing and consuming have a connection each, since an alarm at the broker blocks publishers
and with them every acknowledgement on the same connection.
"""

import asyncio
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

import aio_pika
import aiormq
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq import spec
from aiormq.exceptions import (
    AMQPError,
    ChannelAccessRefused,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    PublishError,
)

from clinic_shared.crash import mutated

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

log = structlog.get_logger()

HEARTBEAT_SECONDS = 10
CONNECT_SECONDS = 5
CONFIRM_SECONDS = 10
CLOSE_SECONDS = 5
ACKNOWLEDGE_SECONDS = 10
_DEFAULT_USER = "guest"
BACK_OFF_SECONDS = (0.2, 3.0)
WINDOW = 200
PERSISTENT = 2

_FAILURES = (AMQPError, ChannelInvalidStateError, OSError, TimeoutError, RuntimeError)


class BrokerUnavailableError(Exception):
    """The broker can't be reached now, or went away in the middle."""

    def __init__(self, retry_after_seconds: float = BACK_OFF_SECONDS[0]) -> None:
        super().__init__("the broker is unavailable")
        self.retry_after_seconds = retry_after_seconds


class EntityMissingError(Exception):
    """A queue or exchange that should exist doesn't."""


@contextmanager
def broker_errors() -> Iterator[None]:
    """Turn what aio-pika raises into this module's errors.

    It also lets a CancelledError escape when the connection dies. Taken for a real cancellation
    it would end a loop without a trace, so only one that somebody asked for is passed on.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        if _cancelled_by_us():
            raise
        raise BrokerUnavailableError from error
    except (ChannelNotFoundEntity, ChannelPreconditionFailed) as error:
        raise EntityMissingError from error
    except _FAILURES as error:
        raise BrokerUnavailableError from error


def _cancelled_by_us() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def acknowledge(channel: aiormq.Channel, *tags: int, upto: int | None = None) -> None:
    """Tell the broker that we are done with these messages, and with all `upto` one. Raises BrokerUnavailableError.

    Frames wait for the writer in a queue of ten, which nobody empties any more once the connection is lost:
    whoever waits for room there waits for ever.
    """
    with broker_errors():
        async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
            if upto is not None:
                await channel.basic_ack(upto, multiple=True, wait=False)
            for tag in tags:
                await channel.basic_ack(tag, wait=False)


class Connection:
    """One connection, made when it is needed and made anew after it is lost.

    `urls` may name several nodes, separated by commas. While the broker is away, callers are told
    at once; one of them tries again when the jittered back-off has passed.
    """

    def __init__(self, urls: str, *, name: str) -> None:
        self.use(urls)
        self._name = name
        self._lock = asyncio.Lock()
        self._current: AbstractConnection | None = None
        self.user: str | None = None
        """As whom the last connection was opened."""
        self._failures = 0
        self._next_try_at = 0.0
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def is_open(self) -> bool:
        # `is_closed` speaks of our own closing only; a lost transport clears `connected`.
        connection = self._current
        return connection is not None and not connection.is_closed and connection.connected.is_set()

    def use(self, urls: str) -> None:
        """Connect there from the next time on; what is open stays open."""
        self._urls = [url.strip() for url in urls.split(",")]

    async def get(self) -> AbstractConnection:
        """Return the open connection. Raises BrokerUnavailableError."""
        async with self._lock:
            if self._current is not None and self.is_open:
                return self._current
            self.abandon()
            wait = self._next_try_at - time.monotonic()
            if wait > 0:
                raise BrokerUnavailableError(wait)
            return await self._connect()

    async def channel(self, *, confirms: bool = False, prefetch: int | None = None) -> AbstractChannel:
        """Open a channel. With `confirms`, an unroutable message raises instead of vanishing."""
        connection = await self.get()
        with broker_errors():
            async with asyncio.timeout(CONNECT_SECONDS):
                channel = connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
                await channel.initialize()
                if prefetch is not None:
                    await channel.set_qos(prefetch_count=prefetch)
        return channel

    async def _connect(self) -> AbstractConnection:
        url = self._urls[self._failures % len(self._urls)]
        try:
            with broker_errors():
                self._current = await aio_pika.connect(
                    url,
                    timeout=CONNECT_SECONDS,
                    heartbeat=HEARTBEAT_SECONDS,
                    client_properties={"connection_name": self._name},
                )
        except (BrokerUnavailableError, EntityMissingError) as error:
            self._failures += 1
            longest = min(BACK_OFF_SECONDS[1], BACK_OFF_SECONDS[0] * 2 ** min(self._failures, 10))
            delay = random.uniform(BACK_OFF_SECONDS[0] / 2, longest)  # noqa: S311  # jitter, not a secret
            self._next_try_at = time.monotonic() + delay
            if self._failures == 1:
                log.warning("broker_unreachable", connection=self._name)
            raise BrokerUnavailableError(delay) from error
        self.user = unquote(urlsplit(url).username or _DEFAULT_USER)
        if self._failures:
            log.info("broker_reachable", connection=self._name)
        self._failures = 0
        return self._current

    def abandon(self) -> None:
        """Give up a connection that doesn't answer; the next caller gets a new one."""
        connection, self._current = self._current, None
        if connection is not None:
            self._close_later(connection)

    def discard(self, channel: AbstractChannel) -> None:
        """Throw a channel away without waiting for it."""
        self._close_later(channel)

    def _close_later(self, resource: AbstractChannel | AbstractConnection) -> None:
        task = asyncio.create_task(_close_quietly(resource))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        self.abandon()
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSE_SECONDS)


async def _close_quietly(resource: AbstractChannel | AbstractConnection) -> None:
    try:
        with broker_errors():
            async with asyncio.timeout(CLOSE_SECONDS):
                await resource.close()
    except (BrokerUnavailableError, EntityMissingError):
        log.debug("broker_resource_already_gone")


class Outcome(StrEnum):
    """What the broker said about one message. Everything but `confirmed` is tried again."""

    CONFIRMED = "confirmed"
    RETURNED = "returned"
    NACKED = "nacked"
    UNKNOWN = "unknown"
    PERMANENT = "permanent"


@dataclass(frozen=True, kw_only=True, slots=True)
class OutgoingMessage:
    """`mandatory`: the broker must say when no queue takes it."""

    exchange: str
    routing_key: str
    message_id: str
    body: bytes
    headers: Mapping[str, Any] = field(default_factory=dict)
    content_type: str = "application/json"
    mandatory: bool = True

    def properties(self, sender: str | None) -> spec.Basic.Properties:
        """Return them with the sender's user, which the broker compares with the connection's."""
        return spec.Basic.Properties(
            user_id=sender,
            content_type=self.content_type,
            delivery_mode=PERSISTENT,
            headers=dict(self.headers),
            message_id=self.message_id,
        )


class Publisher:
    """Publishes with confirms, many at a time, on a channel of its own.

    After an unknown outcome the channel is thrown away: a late confirmation or return could
    otherwise be taken for that of the retry, which has the same message id.
    """

    def __init__(self, connection: Connection, *, window: int = WINDOW) -> None:
        self._connection = connection
        self._window = asyncio.Semaphore(window)
        self._opening = asyncio.Lock()
        self._channel: _PublishingChannel | None = None

    async def publish(self, message: OutgoingMessage) -> Outcome:
        """Send one message and wait for what the broker says."""
        async with self._window:
            try:
                channel = await self._open_channel()
            except (BrokerUnavailableError, EntityMissingError):
                return Outcome.UNKNOWN
            outcome = await channel.publish(message)
            if outcome in {Outcome.UNKNOWN, Outcome.PERMANENT}:
                self._throw_away(channel)
            return outcome

    async def _open_channel(self) -> "_PublishingChannel":
        async with self._opening:
            if self._channel is None or self._channel.channel.is_closed:
                confirms = not mutated("confirms-off")
                channel = await self._connection.channel(confirms=confirms)
                self._channel = _PublishingChannel(channel, sender=self._connection.user)
            return self._channel

    def _throw_away(self, channel: "_PublishingChannel") -> None:
        if self._channel is channel:
            self._channel = None
            self._connection.discard(channel.channel)
            if channel.timed_out:
                # No answer for this long: the broker is stopped or blocked, and heartbeats
                # would need another half minute to notice.
                self._connection.abandon()

    def close(self) -> None:
        if self._channel is not None:
            self._connection.discard(self._channel.channel)
            self._channel = None


class _PublishingChannel:
    """A channel and the message ids in flight on it.

    aiormq finds the message that a `basic.return` belongs to by its id: twice the same id in
    flight would swap the two outcomes and so lose a message.
    """

    def __init__(self, channel: AbstractChannel, *, sender: str | None) -> None:
        self.channel = channel
        self._sender = sender
        self.timed_out = False
        self._in_flight: set[str] = set()

    async def publish(self, message: OutgoingMessage) -> Outcome:
        if message.message_id in self._in_flight:
            raise ValueError("this message id is in flight already")
        self._in_flight.add(message.message_id)
        try:
            return await self._publish(message)
        finally:
            self._in_flight.discard(message.message_id)

    async def _publish(self, message: OutgoingMessage) -> Outcome:
        try:
            underlay = cast("aiormq.Channel", await self.channel.get_underlay_channel())
            await underlay.basic_publish(
                message.body,
                exchange=message.exchange,
                routing_key=message.routing_key,
                properties=message.properties(self._sender),
                mandatory=message.mandatory,
                timeout=CONFIRM_SECONDS,
                # The window bounds what is buffered; waiting for each drain would serialise.
                wait=False,
            )
        except asyncio.CancelledError:
            if _cancelled_by_us():
                raise
            return Outcome.UNKNOWN
        except (*_FAILURES, TypeError, ValueError) as error:
            self.timed_out = self.timed_out or isinstance(error, TimeoutError)
            return _outcome_of(error)
        return Outcome.CONFIRMED


def _outcome_of(error: Exception) -> Outcome:
    if isinstance(error, PublishError):
        return Outcome.RETURNED
    if isinstance(error, DeliveryError):
        return Outcome.NACKED
    # TypeError and ValueError: the client library can't encode it; nothing was sent or ever will be.
    refusals = (ChannelNotFoundEntity, ChannelAccessRefused, ChannelPreconditionFailed, TypeError, ValueError)
    if isinstance(error, refusals):
        log.error("publish_refused", error_class=type(error).__name__)
        return Outcome.PERMANENT
    return Outcome.UNKNOWN


class Broker:
    """A process's connections to RabbitMQ. Nothing is opened before it is used."""

    def __init__(self, urls: str, *, name: str) -> None:
        self.publishing = Connection(urls, name=f"{name} publish")
        self.consuming = Connection(urls, name=f"{name} consume")

    @classmethod
    def of(cls, runtime: "Runtime") -> "Broker":
        """Return the runtime's broker; all loops of a process share it."""
        broker = runtime.resources.get(cls)
        if broker is None:
            broker = cls(runtime.settings.amqp_url.get_secret_value(), name=f"clinic-{runtime.service.name}")
            runtime.provide(broker)
        return cast("Broker", broker)

    def use(self, urls: str) -> None:
        """Connect there from the next time on (a changed password, another node)."""
        self.publishing.use(urls)
        self.consuming.use(urls)

    async def close(self) -> None:
        await asyncio.gather(self.publishing.close(), self.consuming.close())
