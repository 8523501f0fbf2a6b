"""A queue of this replica's own: heard while it runs, then gone. No inbox, nothing kept."""

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import cast

import aiormq
import structlog
from aiormq.abc import ArgumentsType, DeliveredMessage
from clinic_shared.broker import BrokerUnavailableError, Connection, broker_errors
from clinic_shared.envelope import PREFIX, MalformedMessageError
from clinic_shared.health import Health
from clinic_shared.loops import keep_running, pause
from clinic_shared.metrics import LOOP_FAILURES
from clinic_shared.senders import SenderRefusedError, Senders
from clinic_shared.tally import producer_of
from clinic_shared.topology import event_exchange
from pydantic import ValidationError

log = structlog.get_logger()

WATCH_SECONDS = 0.5
LISTEN_SECONDS = 60
STANDSTILL_SECONDS = 5.0
"""Who heard nothing for so long, its own heartbeat included, may have lost the oldest: it begins anew."""
Binding = tuple[str, str]
"""Exchange and routing key."""


class ExclusiveFeed:
    """Hands deliveries to `receive`; `opened` is called whenever listening begins, at first and after a gap."""

    def __init__(
        self,
        name: str,
        amqp_url: str,
        health: Health,
        *,
        bindings: Iterable[Binding],
        receive: Callable[[DeliveredMessage], None],
        opened: Callable[[], None] = lambda: None,
        longest: int | None = None,
    ) -> None:
        self._name = name
        self._connection = Connection(amqp_url, name=f"clinic-gateway {name}")
        self._health = health
        self._bindings = tuple(bindings)
        self._exchanges = {exchange for exchange, _ in self._bindings}
        self._receive = receive
        self._opened = opened
        # A replica that stands still must not fill the broker's memory: the oldest is dropped.
        self._arguments: ArgumentsType = {"x-max-length": longest} if longest else {}
        health.report(name, "not listening yet")

    def use(self, amqp_url: str) -> None:
        """Connect there from the next time on."""
        self._connection.use(amqp_url)

    async def run(self, stop: asyncio.Event) -> None:
        """Listen until told to stop; after an outage, with a new queue."""
        await keep_running(self._name, stop, partial(self._listen, stop), self._health)
        await self._connection.close()

    async def _listen(self, stop: asyncio.Event) -> None:
        channel = await self._connection.channel()
        try:
            underlay = cast("aiormq.Channel", await channel.get_underlay_channel())
            with broker_errors():
                async with asyncio.timeout(LISTEN_SECONDS):
                    declared = await underlay.queue_declare(
                        "", exclusive=True, auto_delete=True, arguments=self._arguments
                    )
                    queue = cast("str", declared.queue)
                    for exchange, routing_key in self._bindings:
                        await underlay.queue_bind(queue, exchange, routing_key=routing_key)
                    self._opened()
                    consuming = await underlay.basic_consume(queue, self._take, no_ack=True)
            self._health.report(self._name, None)
            looked_at = time.monotonic()
            while not stop.is_set():
                stood_still = time.monotonic() - looked_at > STANDSTILL_SECONDS
                if stood_still or underlay.is_closed or consuming.consumer_tag not in underlay.consumers:
                    raise BrokerUnavailableError
                looked_at = time.monotonic()
                await pause(stop, WATCH_SECONDS)
        finally:
            self._connection.discard(channel)

    def _require_sender(self, delivery: DeliveredMessage) -> None:
        """Raises SenderRefusedError for what none of those listened to has published."""
        senders = Senders.seen_by(self._connection.user, "gateway")
        properties = delivery.header.properties
        producer = producer_of(str((properties.headers or {}).get(f"{PREFIX}type")))
        if senders.suffix is not None and event_exchange(producer) not in self._exchanges:
            raise SenderRefusedError(producer)
        senders.require(producer, properties.user_id)

    async def _take(self, delivery: DeliveredMessage) -> None:
        try:
            self._require_sender(delivery)
            self._receive(delivery)
        except (MalformedMessageError, SenderRefusedError, ValidationError) as error:
            LOOP_FAILURES.labels(loop=self._name).inc()
            log.warning("feed_unreadable", component=self._name, error_class=type(error).__name__)
