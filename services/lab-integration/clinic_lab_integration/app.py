"""What lab-integration is made of."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from clinic_shared.inbound.registry import Inbound, Process, receives
from clinic_shared.intake import keep_roll
from clinic_shared.intake_worker import IntakeWorker
from clinic_shared.service import Runtime, Service

from clinic_lab_integration import (
    api,
    callbacks,
    code_map_api,
    consumers,
    document_api,
    fhir_api,
    files,
    message_api,
    mllp,
    obligation_api,
    obligations,
    onboarding_api,
    order_api,
    order_sending,
    reprocessing,
    worklist_api,
)
from clinic_lab_integration.ledger import FROM_LABORATORIES
from clinic_lab_integration.measurements import measure_filing
from clinic_lab_integration.messages import INTERFACES
from clinic_lab_integration.partners import keep_directory
from clinic_lab_integration.protection import ENCRYPTED
from clinic_lab_integration.settings import LabSettings


@asynccontextmanager
async def _open_ledger(runtime: Runtime) -> AsyncIterator[None]:
    for interface in INTERFACES:
        receives(runtime, interface, FROM_LABORATORIES, processing(runtime))
    yield


async def process_messages(runtime: Runtime, stop: asyncio.Event) -> None:
    """Work off what laboratories have sent."""
    await IntakeWorker(runtime, Inbound.of(runtime).processing).run(stop)


def processing(runtime: Runtime) -> Process:
    settings = cast("LabSettings", runtime.settings)
    return reprocessing.Processing(settings.parks_test_messages)


service = Service(
    name="lab-integration",
    package_dir=Path(__file__).parent,
    routers=(
        api.router,
        message_api.router,
        fhir_api.router,
        onboarding_api.router,
        document_api.router,
        worklist_api.router,
        obligation_api.router,
        code_map_api.router,
        order_api.router,
    ),
    handlers=consumers.handlers,
    timers=obligations.timers,
    settings=LabSettings,
    startup=(_open_ledger, keep_directory),
    # Files are accepted by the worker.
    workers=(
        process_messages,
        order_sending.send_orders,
        files.watch_folder,
        keep_roll,
        callbacks.send_callbacks,
    ),
    listeners=(mllp.listen, keep_roll),
    measurements=(measure_filing, obligations.measure, order_sending.measure),
    encrypted=ENCRYPTED,
)
