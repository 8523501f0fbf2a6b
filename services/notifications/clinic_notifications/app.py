"""What notifications is made of."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import httpx
from clinic_shared.inbound.registry import Inbound, receives
from clinic_shared.intake import keep_roll
from clinic_shared.intake_worker import IntakeWorker
from clinic_shared.service import Runtime, Service

from clinic_notifications import announcing, api, callbacks, consumers, staff_api, webhooks
from clinic_notifications.sending import Vendors, send_messages
from clinic_notifications.settings import NotificationSettings
from clinic_notifications.tables import ENCRYPTED


@asynccontextmanager
async def vendors(runtime: Runtime) -> AsyncIterator[None]:
    settings = cast("NotificationSettings", runtime.settings)
    async with httpx.AsyncClient(timeout=settings.vendor_timeout_seconds) as http:
        runtime.provide(http)
        runtime.provide(Vendors.connect(http, settings))
        runtime.on_reload(
            lambda changed: runtime.provide(Vendors.connect(http, cast("NotificationSettings", changed)))
        )
        yield


@asynccontextmanager
async def _receive_callbacks(runtime: Runtime) -> AsyncIterator[None]:
    for provider in callbacks.PROVIDERS:
        receives(runtime, provider, callbacks.CALLBACKS, callbacks.process)
    yield


async def process_callbacks(runtime: Runtime, stop: asyncio.Event) -> None:
    """Work off what vendors called us back with."""
    await intake_worker(runtime).run(stop)


def intake_worker(runtime: Runtime) -> IntakeWorker:
    return IntakeWorker(runtime, Inbound.of(runtime).processing)


service = Service(
    name="notifications",
    package_dir=Path(__file__).parent,
    settings=NotificationSettings,
    routers=(staff_api.router, api.router, webhooks.router),
    handlers=consumers.handlers,
    timers=announcing.timers,
    startup=(vendors, _receive_callbacks),
    workers=(send_messages, process_callbacks),
    listeners=(keep_roll,),
    encrypted=ENCRYPTED,
)
