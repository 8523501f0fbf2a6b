"""The fakes on a random port inside the caller's event loop: what adapters' tests talk to."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import uvicorn
from starlette.types import ASGIApp

from clinic_local.fakes.app import create_app
from clinic_local.fakes.settings import FakesSettings


def bound_to_a_free_port() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    return listener


@asynccontextmanager
async def serving(
    app: ASGIApp, listener: socket.socket | None = None, *, lifespan: Literal["auto", "off"] = "auto"
) -> AsyncIterator[str]:
    """Serve an ASGI application over real HTTP; yields its base URL.

    A `listener` is bound already, for whoever has to know its port before.
    """
    listener = listener or bound_to_a_free_port()
    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        ws="none",
        lifespan=lifespan,
        timeout_graceful_shutdown=1,
    )
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
