"""What billing is made of."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from clinic_shared.inbound.registry import Inbound, receives
from clinic_shared.intake import keep_roll
from clinic_shared.intake_worker import IntakeWorker
from clinic_shared.ledger import Ledger
from clinic_shared.service import Runtime, Service
from clinic_shared.settings import ServiceSettings
from clinic_shared.timers import Timers

from clinic_billing import api, consumers, invoicing, ledger, notification_store, settling_api, webhooks
from clinic_billing.accounting import api as accounting_api
from clinic_billing.cashdesk import api as cashdesk_api
from clinic_billing.notifications import Processing
from clinic_billing.papers import api as papers_api
from clinic_billing.prices import api as prices_api
from clinic_billing.provider_calls import make_provider_calls
from clinic_billing.providers.installed import Providers
from clinic_billing.receipts import api as receipts_api
from clinic_billing.receipts import fiscalising
from clinic_billing.receipts.atol import AtolOnline
from clinic_billing.receipts.registrar import FICTITIOUS_COMPANY
from clinic_billing.receipts.store import CONTACTS
from clinic_billing.reconciliation import api as reconciliation_api
from clinic_billing.reconciliation.running import measure_reconciliation, reconcile_daily
from clinic_billing.reconciliation.tables import PAYER
from clinic_billing.settings import BillingSettings
from clinic_billing.tables import PAYER_CONTACT
from clinic_billing.unheard import ask_about_unheard


@asynccontextmanager
async def _start(runtime: Runtime) -> AsyncIterator[None]:
    providers = Providers(cast("BillingSettings", runtime.settings))
    process = Processing(providers.installed).process
    for name in providers.installed:
        receives(runtime, name, notification_store.NOTIFICATIONS, process)
    Ledger.of(runtime).money = ledger.imbalance
    runtime.provide(providers)
    runtime.on_reload(lambda changed: providers.use(cast("BillingSettings", changed)))
    try:
        yield
    finally:
        await providers.aclose()


@asynccontextmanager
async def _open_receipts(runtime: Runtime) -> AsyncIterator[None]:
    settings = cast("BillingSettings", runtime.settings)
    atol = AtolOnline.connect(
        base_url=settings.atol_base_url,
        login=settings.atol_login,
        password=settings.atol_password.get_secret_value(),
    )
    # Nobody's taxes depend on receipts made in development, so there nobody has to fill in a profile first.
    fallback = None if settings.environment == "production" else FICTITIOUS_COMPANY
    runtime.provide(fiscalising.Desk(atol, fallback=fallback))

    def reload(changed: ServiceSettings) -> None:
        renewed = cast("BillingSettings", changed)
        atol.use(login=renewed.atol_login, password=renewed.atol_password.get_secret_value())

    runtime.on_reload(reload)
    try:
        yield
    finally:
        await atol.aclose()


async def process_notifications(runtime: Runtime, stop: asyncio.Event) -> None:
    """Work off what the webhooks took in."""
    await intake_worker(runtime).run(stop)


def intake_worker(runtime: Runtime) -> IntakeWorker:
    return IntakeWorker(runtime, Inbound.of(runtime).processing)


timers = Timers()
for kind, handler in (*invoicing.timers.handlers.items(), *fiscalising.timers.handlers.items()):
    timers.on(kind)(handler)

service = Service(
    name="billing",
    package_dir=Path(__file__).parent,
    routers=(
        accounting_api.router,
        cashdesk_api.router,
        papers_api.router,
        prices_api.router,
        reconciliation_api.router,
        receipts_api.router,
        settling_api.router,
        api.router,
        webhooks.router,
    ),
    handlers=consumers.handlers,
    timers=timers,
    settings=BillingSettings,
    startup=(_start, _open_receipts),
    listeners=(keep_roll,),
    workers=(
        make_provider_calls,
        process_notifications,
        ask_about_unheard,
        fiscalising.fiscalise_receipts,
        reconcile_daily,
    ),
    measurements=(fiscalising.measure_receipts, measure_reconciliation),
    encrypted=(PAYER_CONTACT.kind, PAYER.kind, CONTACTS),
)
