"""What notifications is made of."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import httpx
from clinic_shared.service import Runtime, Service

from clinic_notifications import announcing, api, consumers, webhooks
from clinic_notifications.sending import Vendors, send_messages
from clinic_notifications.settings import NotificationSettings


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


service = Service(
    name="notifications",
    package_dir=Path(__file__).parent,
    settings=NotificationSettings,
    routers=(api.router, webhooks.router),
    handlers=consumers.handlers,
    timers=announcing.timers,
    startup=(vendors,),
    workers=(send_messages,),
)
