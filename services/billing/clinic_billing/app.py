"""What billing is made of."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from clinic_shared.intake_worker import IntakeWorker
from clinic_shared.ledger import Ledger
from clinic_shared.service import Runtime, Service

from clinic_billing import api, consumers, invoicing, ledger, notification_store, notifications, webhooks
from clinic_billing.domain import STRIPE
from clinic_billing.provider_calls import make_provider_calls
from clinic_billing.settings import BillingSettings
from clinic_billing.stripe import StripeClient


@asynccontextmanager
async def _start(runtime: Runtime) -> AsyncIterator[None]:
    settings = cast("BillingSettings", runtime.settings)
    counted = Ledger.of(runtime)
    counted.interfaces[STRIPE] = notification_store.count_dispositions
    counted.money = ledger.imbalance
    client = StripeClient.connect(
        base_url=settings.stripe_base_url, secret_key=settings.stripe_secret_key.get_secret_value()
    )
    runtime.provide(client)
    runtime.on_reload(
        lambda changed: client.use(cast("BillingSettings", changed).stripe_secret_key.get_secret_value())
    )
    try:
        yield
    finally:
        await client.aclose()


async def process_notifications(runtime: Runtime, stop: asyncio.Event) -> None:
    """Work off what the webhooks took in."""
    await IntakeWorker(runtime, {STRIPE: notifications.process}).run(stop)


service = Service(
    name="billing",
    package_dir=Path(__file__).parent,
    routers=(api.router, webhooks.router),
    handlers=consumers.handlers,
    timers=invoicing.timers,
    settings=BillingSettings,
    startup=(_start,),
    workers=(make_provider_calls, process_notifications),
)
