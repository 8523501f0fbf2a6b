"""Running a service: `python -m clinic_<service> api | worker | all | migrate`.

The worker role runs relay, consumers, held messages, timers, measuring and the service's own loops, and with
`CLINIC_HTTP_PORT` answers probes and `/metrics`; `all` is both roles in one process. On SIGTERM the loops finish what they hold before the process ends.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any, Literal, get_args

import structlog
import uvicorn
import uvloop
from starlette.types import ASGIApp

from clinic_shared import telemetry, tracing
from clinic_shared.app import create_app, worker_app
from clinic_shared.crash import SWITCHES
from clinic_shared.dead_letters import HeldWorker, ParkingDrain
from clinic_shared.deliveries import Consumer
from clinic_shared.measuring import measure
from clinic_shared.migrations import migrate
from clinic_shared.process_metrics import watch_process
from clinic_shared.relay import Relay
from clinic_shared.reloading import follow_secrets
from clinic_shared.service import Runtime, Service, running
from clinic_shared.settings import ServiceSettings
from clinic_shared.sweeper import sweep
from clinic_shared.timer_worker import TimerWorker
from clinic_shared.topology import queues_of

log = structlog.get_logger()

Role = Literal["api", "worker", "all", "migrate"]
Loop = Callable[[asyncio.Event], Coroutine[Any, Any, None]]
GRACE_SECONDS = 20


class ProductionRefusesError(RuntimeError):
    """A setting that exists for tests was given in production."""


def main(service: Service) -> None:
    """Entry point of a service's `__main__`."""
    role = sys.argv[1] if len(sys.argv) > 1 else ""
    if role not in get_args(Role):
        sys.exit(f"usage: python -m {service.package_dir.name} {' | '.join(get_args(Role))}")
    run(service, role)  # type: ignore[arg-type]  # just checked


def run(service: Service, role: Role) -> None:
    """Run one role of a service until SIGTERM or SIGINT."""
    settings = service.settings.load()
    telemetry.configure_logging(service.name, settings.log_level)
    _refuse_test_switches(settings)
    if role == "migrate":
        migrate(settings.sqlalchemy_url, service.migrations_dir)
        return
    log.info("service_starting", role=role, settings=settings.redacted())
    with (
        tracing.exporting(service.name),
        contextlib.suppress(KeyboardInterrupt),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_serve(service, settings, role))


def _refuse_test_switches(settings: ServiceSettings) -> None:
    for name in SWITCHES:
        if name in os.environ and settings.environment == "production":
            raise ProductionRefusesError(f"{name} is refused in production")


async def _serve(service: Service, settings: ServiceSettings, role: Role) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    async with running(service, settings) as runtime, asyncio.TaskGroup() as group:
        group.create_task(watch_process(runtime, stop), name="event loop")
        group.create_task(follow_secrets(runtime, stop), name="secrets")
        if role in {"api", "all"}:
            group.create_task(_serve_http(runtime, create_app(runtime.service, runtime), stop), name="http")
        elif settings.http_port:
            group.create_task(_serve_http(runtime, worker_app(runtime), stop), name="http")
        if role in {"worker", "all"}:
            for name, work in worker_loops(runtime).items():
                group.create_task(work(stop), name=name)
    log.info("service_stopped", role=role)


class _Server(uvicorn.Server):
    """Uvicorn without signal handlers of its own: one stop event ends everything in order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve_http(runtime: Runtime, app: ASGIApp, stop: asyncio.Event) -> None:
    settings = runtime.settings
    server = _Server(
        uvicorn.Config(
            app,
            host=settings.http_host,
            port=settings.http_port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            # The gateway is the only caller and speaks for the client itself.
            proxy_headers=False,
        )
    )
    serving = asyncio.create_task(server.serve())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    server.should_exit = True
    await serving
    # A server that ended by itself (a port in use) takes the process with it, for the supervisor to see.
    stop.set()


def worker_loops(runtime: Runtime) -> dict[str, Loop]:
    """Return the endless loops of the worker role, by name. Each survives every error."""
    loops: dict[str, Loop] = {
        "relay": Relay(runtime).run,
        "held": HeldWorker(runtime).run,
        "parking": ParkingDrain(runtime).run,
        "timers": TimerWorker(runtime).run,
        "sweeper": partial(sweep, runtime),
        "measuring": partial(measure, runtime),
    }
    for queue in queues_of(runtime):
        loops[f"consumer:{queue}"] = Consumer(runtime, queue).run
    for work in runtime.service.workers:
        loops[f"{work.__module__}.{work.__name__}"] = partial(work, runtime)
    return loops
