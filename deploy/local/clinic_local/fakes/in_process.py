"""The fakes on a random port inside the caller's event loop: what adapters' tests talk to."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import ASGIApp

from clinic_local.fakes.app import create_app
from clinic_local.fakes.settings import FakesSettings


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """Serve an ASGI application over real HTTP; yields its base URL."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="error", access_log=False, ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        if task.done():
            await task
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


@asynccontextmanager
async def running_fakes(clinic_url: str, **settings: object) -> AsyncIterator[str]:
    """Serve the fakes with their callbacks going to `clinic_url`; yields the base URL of all vendors."""
    async with serving(create_app(FakesSettings.model_validate({"url": clinic_url, **settings}))) as url:
        yield url
