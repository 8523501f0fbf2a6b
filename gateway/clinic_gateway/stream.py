"""`/v1/stream`: server-sent events of what changed, so that clients ask again with their own permissions.

Nothing is kept: who comes back in time gets what was missed out of memory; who doesn't, or can't follow,
is told `reset` and reads everything anew.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any
from uuid import UUID

import orjson
from aiormq.abc import DeliveredMessage
from clinic_shared import contracts
from clinic_shared.envelope import Envelope, decode_body
from clinic_shared.health import Health
from clinic_shared.principal import Principal
from clinic_shared.topology import event_exchange

from clinic_gateway.changes import Change, Ring, Rules
from clinic_gateway.errors import TooManyStreamsError
from clinic_gateway.exchange import Exchange
from clinic_gateway.exclusive_feed import ExclusiveFeed
from clinic_gateway.metrics import STREAM_RESETS, STREAMS
from clinic_gateway.settings import GatewaySettings
from clinic_gateway.tokens import Revocations, expires_at

PATH = "/v1/stream"
SCOPE = "stream.read"
OPERATION: dict[str, Any] = {
    "operationId": "followChanges",
    "tags": ["gateway"],
    "summary": "Live updates",
    "description": "Server-sent events: `change` tells that a resource has a new version, and nothing of what is"
    " in it; only changes of what the caller may read. Come back with `Last-Event-ID` to get what was missed; `reset`"
    " means that it is gone: read what is shown anew. A change may be told twice. The stream ends with its token.",
    "parameters": [
        {
            "name": "Last-Event-ID",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "format": "uuid"},
        }
    ],
    "responses": {
        "200": {
            "description": "A stream that goes on",
            "content": {
                "text/event-stream": {
                    "schema": {"type": "string"},
                    "example": "id: 01900000-0000-7000-8000-c00000000001\nevent: change\n"
                    'data: {"type":"scheduling.appointment-booked.v1",'
                    '"subject":"01900000-0000-7000-8000-a00000000001","version":1}\n\n',
                }
            },
        }
    },
}
HEARTBEAT = b": still here\n\n"
RETRY_MILLISECONDS = (1000, 5000)
"""A random one for each, so that all don't come back in the same second."""
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    # nginx would hold back what is small.
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
]


class Listener:
    """One open stream: what it has still to be told. Who falls behind begins anew."""

    def __init__(self, principal: Principal, longest: int) -> None:
        self._principal = principal
        self._waiting: asyncio.Queue[Change | None] = asyncio.Queue(longest)

    def tell(self, change: Change) -> None:
        if not change.concerns(self._principal):
            return
        try:
            self._waiting.put_nowait(change)
        except asyncio.QueueFull:
            self.reset("too-slow")

    def reset(self, reason: str) -> None:
        STREAM_RESETS.labels(reason=reason).inc()
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self._waiting.put_nowait(None)

    async def next(self) -> Change | None:
        """Return the next change; None means to begin anew."""
        return await self._waiting.get()


class Stream:
    """All open streams of this replica, fed from the broker."""

    def __init__(self, settings: GatewaySettings, revocations: Revocations, health: Health) -> None:
        self._settings = settings
        self._revocations = revocations
        self._stopping = health.stopping
        self._ring = Ring(settings.stream_ring)
        self._listeners: set[Listener] = set()
        self._open: Counter[UUID] = Counter()

    @cached_property
    def _rules(self) -> Rules:
        return Rules(contracts.load(self._settings.contracts_dir).taxonomy("stream"))

    def feed(self, amqp_url: str, health: Health) -> ExclusiveFeed:
        """Return what feeds it: every event of the installed services."""
        known = contracts.load(self._settings.contracts_dir).services
        installed = [name for name in known if name in self._settings.upstream_urls]
        return ExclusiveFeed(
            "stream",
            amqp_url,
            health,
            bindings=[(event_exchange(producer), "#") for producer in installed],
            receive=self.receive,
            opened=self.opened,
            longest=self._settings.stream_ring,
        )

    def opened(self) -> None:
        """Whatever happened until now may have been missed."""
        self._ring.clear()
        for listener in self._listeners:
            listener.reset("gap")

    def receive(self, delivery: DeliveredMessage) -> None:
        headers = delivery.header.properties.headers or {}
        envelope = Envelope.from_headers(headers)
        change = self._rules.change_of(envelope, decode_body(delivery.body, None), heard_at=time.monotonic())
        if change is not None:
            self._ring.add(change)
            for listener in self._listeners:
                listener.tell(change)

    async def answer(self, exchange: Exchange, principal: Principal, token: str) -> None:
        """Stream until the client goes, the token ends, the session is revoked or the process stops."""
        with self._listening(principal) as listener:
            begun = self._beginning(exchange, principal)
            await exchange.start(200, list(_HEADERS))
            gone = asyncio.create_task(_disconnected(exchange))
            try:
                async for chunk in self._chunks(begun, listener, principal, token, gone):
                    await exchange.send({"type": "http.response.body", "body": chunk, "more_body": True})
            finally:
                gone.cancel()
            with suppress(OSError):
                await exchange.finish(b"")

    @contextmanager
    def _listening(self, principal: Principal) -> Iterator[Listener]:
        if self._open[principal.subject] >= self._settings.streams_per_subject:
            raise TooManyStreamsError(limit=self._settings.streams_per_subject)
        listener = Listener(principal, self._settings.stream_backlog)
        self._listeners.add(listener)
        self._open[principal.subject] += 1
        STREAMS.set(len(self._listeners))
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            self._open[principal.subject] -= 1
            self._open += Counter()
            STREAMS.set(len(self._listeners))

    def _beginning(self, exchange: Exchange, principal: Principal) -> bytes:
        """Return what a stream begins with: the pause before coming back, and what was missed."""
        retry = f"retry: {random.randint(*RETRY_MILLISECONDS)}\n\n".encode()  # noqa: S311  # jitter
        last = exchange.headers.get(b"last-event-id", b"").decode("latin-1")
        if not last:
            return retry
        missed = self._missed(last)
        if missed is None:
            STREAM_RESETS.labels(reason="too-old").inc()
            return retry + self._reset()
        return retry + b"".join(_told(change) for change in missed if change.concerns(principal))

    def _missed(self, last_event_id: str) -> list[Change] | None:
        try:
            return self._ring.since(UUID(last_event_id))
        except ValueError:
            return None

    def _reset(self) -> bytes:
        """Tell a client to read everything anew; the id is where it then stands."""
        return f"id: {self._ring.newest or ''}\nevent: reset\ndata: {{}}\n\n".encode()

    async def _chunks(
        self,
        begun: bytes,
        listener: Listener,
        principal: Principal,
        token: str,
        gone: asyncio.Task[None],
    ) -> AsyncIterator[bytes]:
        yield begun
        stopping = asyncio.create_task(self._stopping.wait())
        following = asyncio.create_task(listener.next())
        ends_at = expires_at(token)
        try:
            while time.time() < ends_at and not self._revocations.cover(principal, token):
                patience = min(self._settings.stream_heartbeat_seconds, ends_at - time.time())
                await asyncio.wait(
                    {stopping, following, gone}, timeout=patience, return_when=asyncio.FIRST_COMPLETED
                )
                if stopping.done() or gone.done():
                    return
                if not following.done():
                    yield HEARTBEAT
                    continue
                change = following.result()
                following = asyncio.create_task(listener.next())
                # Between an event and its telling the session may have ended.
                if not self._revocations.cover(principal, token):
                    yield self._reset() if change is None else _told(change)
        finally:
            stopping.cancel()
            following.cancel()


def _told(change: Change) -> bytes:
    data = orjson.dumps({"type": change.type, "subject": str(change.subject), "version": change.version})
    return b"id: %s\nevent: change\ndata: %s\n\n" % (str(change.event_id).encode(), data)


async def _disconnected(exchange: Exchange) -> None:
    while (await exchange.receive())["type"] != "http.disconnect":
        pass
