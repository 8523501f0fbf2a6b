"""A TCP proxy before a server that loses, delays and cuts what passes through it; in a thread of its own.

Connections are known by who made them: the database they ask for, or the name they give to the broker.
"""

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self, TypeVar

T = TypeVar("T")

_CHUNK = 65536
_STEP_SECONDS = 60
_NAMES = (
    re.compile(rb"database\0clinic_([a-z_]+)\0"),
    re.compile(rb"connection_nameS\0\0\0.clinic-([a-z-]+)", re.DOTALL),
)


class Way(Enum):
    """Which way bytes go."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"


BOTH = frozenset(Way)
Landmark = tuple[Way, re.Pattern[bytes]]
COMMITTED: Landmark = (Way.TO_CLIENT, re.compile(rb"C\0\0\0\x0bCOMMIT\0"))
"""The database's word that a transaction is durable."""
_BASIC_ACK = re.compile(rb"\x01..\0\0\0\x0d\0\x3c\0\x50", re.DOTALL)
CONFIRMED: Landmark = (Way.TO_CLIENT, _BASIC_ACK)
"""The broker's word that it keeps what was published."""
ACKNOWLEDGED: Landmark = (Way.TO_SERVER, _BASIC_ACK)
"""A consumer's word that it is done with a message."""


@dataclass
class Trap:
    """Cuts the first connection on which these bytes come by, before anybody hears them."""

    way: Way
    bytes_: re.Pattern[bytes]
    owner: str | None
    sprung: threading.Event = field(default_factory=threading.Event)


@dataclass(eq=False)
class Link:
    """One client's connection, in both directions."""

    writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    owner: str = ""

    def cut(self) -> None:
        for writer in self.writers:
            writer.transport.abort()


class FaultProxy:
    """`target` returns the server's port, asked at each connection: it may not be known before."""

    def __init__(self, target: Callable[[], int]) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._links: set[Link] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._traps: list[Trap] = []
        self._held: frozenset[Way] = frozenset()
        self._held_owner: str | None = None
        self._flows = asyncio.Event()
        self._delay_seconds = 0.0
        self._held_up = 0
        self._refuses = False
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cut(self, owner: str | None = None) -> int:
        """Reset the connections of one client or of all; returns how many there were."""
        return self._do(self._cut(owner))

    @contextmanager
    def refusing(self) -> Iterator[int]:
        """Reset all connections and let nobody in."""
        self._refuses = True
        try:
            yield self.cut()
        finally:
            self._refuses = False

    @contextmanager
    def holding(self, ways: frozenset[Way], owner: str | None = None) -> Iterator[Callable[[], bool]]:
        """Let nothing pass in these directions: a black hole, or one that is only half open.

        Yields what tells whether anything was held up, as `slow` does.
        """
        self._held, self._held_owner = ways, owner
        try:
            yield self._since_now()
        finally:
            self._held = frozenset()
            self._loop.call_soon_threadsafe(self._flows.set)

    @contextmanager
    def slow(self, seconds: float) -> Iterator[Callable[[], bool]]:
        """Let every piece of every conversation take so much longer."""
        self._delay_seconds = seconds
        try:
            yield self._since_now()
        finally:
            self._delay_seconds = 0.0

    def owners(self) -> set[str]:
        """Return who is connected, as far as they have said."""
        return {link.owner for link in list(self._links)} - {""}

    def lay_trap(self, where: Landmark, owner: str | None = None) -> Trap:
        trap = Trap(*where, owner)
        self._traps.append(trap)
        return trap

    def take_away(self, trap: Trap) -> None:
        with contextlib.suppress(ValueError):  # it has sprung
            self._traps.remove(trap)

    @contextmanager
    def trap(self, where: Landmark, owner: str | None = None) -> Iterator[Trap]:
        trap = self.lay_trap(where, owner)
        try:
            yield trap
        finally:
            self.take_away(trap)

    def _since_now(self) -> Callable[[], bool]:
        before = self._held_up
        return lambda: self._held_up > before

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_STEP_SECONDS)

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _close(self) -> None:
        self._server.close()
        await self._cut(None)
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _cut(self, owner: str | None) -> int:
        found = [link for link in self._links if _is_of(link, owner)]
        for link in found:
            link.cut()
        return len(found)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target())
        except (OSError, ValueError):
            # The server is away, or its port is being written down at this moment.
            writer.transport.abort()
            return
        link = Link((writer, there_writer))
        self._links.add(link)
        self._start(self._pump(link, reader, there_writer, Way.TO_SERVER))
        self._start(self._pump(link, there_reader, writer, Way.TO_CLIENT))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._pumps.add(task)
        task.add_done_callback(self._pumps.discard)

    async def _pump(
        self, link: Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: Way
    ) -> None:
        try:
            with contextlib.suppress(OSError):
                while data := await source.read(_CHUNK):
                    if not link.owner and way is Way.TO_SERVER:
                        link.owner = _owner(data)
                    await self._pass(link, way)
                    if self._springs(link, way, data):
                        break
                    sink.write(data)
                    await sink.drain()
        finally:
            link.cut()
            self._links.discard(link)

    async def _pass(self, link: Link, way: Way) -> None:
        if self._delay_seconds:
            self._held_up += 1
            await asyncio.sleep(self._delay_seconds)
        while way in self._held and _is_of(link, self._held_owner):
            self._held_up += 1
            self._flows.clear()
            await self._flows.wait()

    def _springs(self, link: Link, way: Way, data: bytes) -> bool:
        for trap in self._traps:
            if trap.way is way and _is_of(link, trap.owner) and trap.bytes_.search(data):
                self._traps.remove(trap)
                trap.sprung.set()
                return True
        return False


def _is_of(link: Link, owner: str | None) -> bool:
    return owner is None or link.owner == owner


def _owner(data: bytes) -> str:
    found = next((match for pattern in _NAMES if (match := pattern.search(data))), None)
    return found[1].decode().replace("_", "-") if found else ""
