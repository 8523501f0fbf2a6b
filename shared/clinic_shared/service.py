"""The composition of a service: what it is made of, and what it runs with."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from clinic_shared.auth import TokenVerifier
from clinic_shared.broker import Broker
from clinic_shared.clock import Clock, SystemClock
from clinic_shared.consumer import Handlers
from clinic_shared.database import Database, Transaction
from clinic_shared.encryption.backlog import Kind
from clinic_shared.encryption.keyring import Keyring
from clinic_shared.encryption.providers import ProviderError
from clinic_shared.encryption.upkeep import bring_keys
from clinic_shared.internal_tokens import ServiceVerifier
from clinic_shared.rebuild import ReadModel
from clinic_shared.reloading import Listener
from clinic_shared.routing import ClinicRouter
from clinic_shared.settings import ServiceSettings
from clinic_shared.timers import Timers

Resource = TypeVar("Resource")


@dataclass
class Runtime:
    """What a running service has at hand. Made once per process by `running`."""

    service: "Service"
    settings: ServiceSettings
    database: Database
    clock: Clock
    verifier: ServiceVerifier
    resources: dict[type, Any] = field(default_factory=dict)
    closing: AsyncExitStack = field(default_factory=AsyncExitStack)
    """What has to end before the database and the broker are left."""
    _listeners: list[Listener] = field(default_factory=list)

    def on_reload(self, listener: Listener) -> None:
        """Have `listener` called with new settings. It raises when it can't use them, and then keeps the old."""
        self._listeners.append(listener)

    def reload(self) -> None:
        """Read the settings again and go on with them. Raises what makes them unusable."""
        self.take(self.service.settings.load())

    def take(self, settings: ServiceSettings) -> None:
        """Go on with other settings: new connections, signatures and calls use them."""
        for listener in self._listeners:
            listener(settings)
        self.verifier.take_gateway_keys(settings)
        self.settings = settings
        self.database.use(settings.sqlalchemy_url)
        Broker.of(self).use(settings.amqp_url.get_secret_value())

    def provide(self, resource: object, *, as_type: type | None = None) -> None:
        """Offer a long-lived object (an HTTP client, a cache) to routes and workers."""
        self.resources[as_type or type(resource)] = resource

    def get(self, kind: type[Resource]) -> Resource:
        return self.resources[kind]  # type: ignore[no-any-return]  # keyed by its own type


Startup = Callable[[Runtime], AbstractAsyncContextManager[None]]
Measurement = Callable[["Runtime", Transaction], Coroutine[Any, Any, None]]
Worker = Callable[[Runtime, asyncio.Event], Coroutine[Any, Any, None]]


@dataclass(frozen=True, kw_only=True)
class Service:
    """Everything that makes a service itself; the rest is the runtime's."""

    name: str
    package_dir: Path
    routers: tuple[ClinicRouter, ...]
    handlers: Handlers
    timers: Timers = field(default_factory=Timers)
    settings: type[ServiceSettings] = ServiceSettings
    startup: tuple[Startup, ...] = ()
    key_files: Callable[[Any], object] | None = None
    """Reads the keys beside the settings and raises RuntimeError: for `clinic config check`."""
    read_model: ReadModel | None = None
    workers: tuple[Worker, ...] = ()
    """Endless loops of the worker role beside relay, consumers and timers."""
    listeners: tuple[Worker, ...] = ()
    """Endless loops of the API role beside HTTP: doors that speak another protocol."""
    encrypted: tuple[Kind, ...] = ()
    """Its own tables with a data key in each row, for rotations."""
    measurements: tuple[Measurement, ...] = ()
    """What the service sets its own gauges with, from its database, now and then (`measuring.py`)."""

    @property
    def migrations_dir(self) -> Path:
        return self.package_dir.parent / "migrations"


@asynccontextmanager
async def running(
    service: Service,
    settings: ServiceSettings,
    *,
    clock: Clock | None = None,
    verifier: TokenVerifier | None = None,
) -> AsyncIterator[Runtime]:
    """Make a service's runtime and take it down again."""
    clock = clock or SystemClock()
    database = Database(
        settings.sqlalchemy_url,
        service=service.name,
        pool_size=settings.database_pool_size,
        pool_timeout_seconds=settings.database_pool_timeout_seconds,
        clock=clock,
        check_contracts=settings.environment != "production",
        keyring=Keyring(encrypting=settings.encrypt_at_rest),
    )
    runtime = Runtime(
        service=service,
        settings=settings,
        database=database,
        clock=clock,
        verifier=ServiceVerifier.from_settings(
            verifier or TokenVerifier.from_settings(settings), settings, service=service.name, clock=clock
        ),
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.dispose)
        stack.push_async_callback(Broker.of(runtime).close)
        await stack.enter_async_context(runtime.closing)
        # A key service that is away keeps nobody from starting: `follow_keys` goes on asking.
        with contextlib.suppress(ProviderError):
            await bring_keys(database.keyring, settings, service.name)
        for start in service.startup:
            await stack.enter_async_context(start(runtime))
        yield runtime
