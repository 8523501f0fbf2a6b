"""Running a service: `python -m clinic_<service> api | worker | all | migrate`.

The worker role runs relay, consumers, held messages, timers, measuring and the service's own loops, and with
`CLINIC_HTTP_PORT` answers probes and `/metrics`; `all` is both roles in one process. On SIGTERM the loops finish what they hold before the process ends.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Literal, get_args

import structlog
import uvloop
from starlette.types import ASGIApp

from clinic_shared import telemetry, tracing
from clinic_shared.app import create_app, worker_app
from clinic_shared.crash import SWITCHES
from clinic_shared.dead_letters.run_worker import RedriveWorker
from clinic_shared.dead_letters.workers import HeldWorker, ParkingDrain
from clinic_shared.deliveries import Consumer
from clinic_shared.encryption.backlog import encrypt_stored
from clinic_shared.encryption.upkeep import follow_keys
from clinic_shared.health import Health
from clinic_shared.http_server import Listening, serve_http, stop_on_signals
from clinic_shared.lookout import Lookout
from clinic_shared.measuring import measure
from clinic_shared.migrations import migrate
from clinic_shared.process_metrics import watch_process
from clinic_shared.rebuild_worker import Rebuilder, ShadowFiller
from clinic_shared.relay import Relay
from clinic_shared.reloading import follow_secrets
from clinic_shared.replay_worker import ReplayWorker
from clinic_shared.service import Runtime, Service, running
from clinic_shared.settings import ServiceSettings
from clinic_shared.sweeper import sweep
from clinic_shared.timer_worker import TimerWorker
from clinic_shared.tls import OwnCertificate
from clinic_shared.topology import queues_of

log = structlog.get_logger()

Role = Literal["api", "worker", "all", "migrate"]
Loop = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


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
    stop = stop_on_signals()
    async with running(service, settings) as runtime, asyncio.TaskGroup() as group:
        group.create_task(watch_process(runtime, stop), name="event loop")
        group.create_task(
            follow_secrets(settings.secrets_dir, runtime.reload, Health.of(runtime), stop), name="secrets"
        )
        group.create_task(follow_keys(runtime, stop), name="data keys")
        if role in {"api", "all"}:
            group.create_task(_serve_http(runtime, create_app(runtime.service, runtime), stop), name="http")
            for listen in service.listeners:
                group.create_task(listen(runtime, stop), name=f"{listen.__module__}.{listen.__name__}")
        elif settings.http_port:
            group.create_task(_serve_http(runtime, worker_app(runtime), stop), name="http")
        if role in {"worker", "all"}:
            for name, work in worker_loops(runtime).items():
                group.create_task(work(stop), name=name)
    log.info("service_stopped", role=role)


async def _serve_http(runtime: Runtime, app: ASGIApp, stop: asyncio.Event) -> None:
    settings, health = runtime.settings, Health.of(runtime)
    certificate = OwnCertificate.of(settings)
    listening = Listening(
        host=settings.http_host,
        port=settings.http_port,
        tls=certificate.context if certificate else None,
        drain_seconds=settings.drain_seconds,
        grace_seconds=settings.grace_seconds,
    )
    # A server that ended by itself (a port in use) takes the process with it, for the supervisor to see.
    serving = serve_http(app, listening, stop=stop, health=health)
    if certificate is None:
        await serving
    else:
        await asyncio.gather(serving, certificate.follow(health, stop))


def worker_loops(runtime: Runtime) -> dict[str, Loop]:
    """Return the endless loops of the worker role, by name. Each survives every error."""
    loops: dict[str, Loop] = {
        "relay": Relay(runtime).run,
        "lookout": Lookout.of(runtime).run,
        "held": HeldWorker(runtime).run,
        "redrive": RedriveWorker(runtime).run,
        "parking": ParkingDrain(runtime).run,
        "timers": TimerWorker(runtime).run,
        "sweeper": partial(sweep, runtime),
        "encryption": partial(encrypt_stored, runtime),
        "measuring": partial(measure, runtime),
        "replay": ReplayWorker(runtime).run,
    }
    if runtime.service.read_model is not None:
        loops["rebuild"] = Rebuilder(runtime).run
        loops["shadow"] = ShadowFiller(runtime).run
    for queue in queues_of(runtime):
        loops[f"consumer:{queue}"] = Consumer(runtime, queue).run
    for work in runtime.service.workers:
        loops[f"{work.__module__}.{work.__name__}"] = partial(work, runtime)
    return loops
