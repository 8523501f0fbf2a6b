"""One process with all fakes: `create_app` for tests, `main` for the local supervisor."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette

from clinic_local.fakes.atol import Atol
from clinic_local.fakes.control import Control, refuse_invalid
from clinic_local.fakes.laboratory import Laboratory
from clinic_local.fakes.postmark import Postmark
from clinic_local.fakes.razorpay import Razorpay
from clinic_local.fakes.settings import FakesSettings
from clinic_local.fakes.stripe import Stripe
from clinic_local.fakes.twilio import Twilio
from clinic_local.fakes.whatsapp import WhatsApp
from clinic_local.fakes.world import World
from clinic_local.fakes.yookassa import YooKassa


def create_app(settings: FakesSettings) -> Starlette:
    world = World(settings)
    whatsapp, stripe, laboratory = WhatsApp(world), Stripe(world), Laboratory(world)
    yookassa, razorpay, atol = YooKassa(world), Razorpay(world), Atol(world)
    forgetful = (whatsapp, stripe, yookassa, razorpay, atol, laboratory)
    control = Control(world, [vendor.reset for vendor in forgetful])
    vendors = (control, Twilio(world), Postmark(world), *forgetful)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001
        verification = None
        if settings.whatsapp_verify_on_start:
            verification = asyncio.create_task(whatsapp.verify_subscription())
        yield
        if verification is not None:
            verification.cancel()
        await world.callbacks.aclose()

    return Starlette(
        routes=[route for vendor in vendors for route in vendor.routes()],
        exception_handlers={ValidationError: refuse_invalid},
        lifespan=lifespan,
    )


def main(environ: Mapping[str, str]) -> None:
    settings = FakesSettings.from_environ(environ)
    uvicorn.run(
        create_app(settings),
        host=settings.http_host,
        port=settings.http_port,
        log_level="warning",
        access_log=False,
    )
