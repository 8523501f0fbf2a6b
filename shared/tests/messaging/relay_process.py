"""A relay in a process of its own, to be killed: `relay_process.py <folder of the service>`, the rest by `CLINIC_*`."""

import asyncio
import signal
import sys
from pathlib import Path

from clinic_shared.consumer import Handlers
from clinic_shared.relay import Relay
from clinic_shared.service import Service, running
from clinic_shared.settings import ServiceSettings


async def relay(folder: Path) -> None:
    service = Service(name="patients", package_dir=folder, routers=(), handlers=Handlers("patients"))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with running(service, ServiceSettings.load()) as runtime:
        await Relay(runtime).run(stop)


if __name__ == "__main__":
    asyncio.run(relay(Path(sys.argv[1])))
