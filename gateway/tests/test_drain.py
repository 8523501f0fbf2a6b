"""Told to stop under steady traffic: whoever was let in gets a whole answer."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import aiohttp
import httpx
from clinic_gateway.app import create_app
from clinic_gateway.settings import GatewaySettings
from clinic_local.ports import free_port
from clinic_shared.health import Health
from clinic_shared.http_server import Listening, serve_http
from clinic_shared.testing import eventually
from starlette.types import ASGIApp

if TYPE_CHECKING:
    from .conftest import Clinic, Reply, StartClinic

CLIENTS = 8
PATH = "/v1/webhooks/payments/x"
DRAIN_SECONDS = 0.4


class Serving:
    """Whatever a process serves, until it is told to stop."""

    def __init__(self, app: ASGIApp, port: int, health: Health | None = None) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._stop = asyncio.Event()
        listening = Listening(host="127.0.0.1", port=port, drain_seconds=DRAIN_SECONDS, grace_seconds=5)
        self._task = asyncio.create_task(
            serve_http(app, listening, stop=self._stop, health=health or Health())
        )

    async def stop(self) -> None:
        self._stop.set()
        await self._task


@asynccontextmanager
async def traffic(*urls: str, **headers: str) -> AsyncIterator[Counter[str]]:
    """Let steady clients call over kept-alive connections. Who can't connect goes to the next address."""
    outcomes: Counter[str] = Counter()
    stop = asyncio.Event()

    async def ask(http: aiohttp.ClientSession) -> str:
        for url in urls:
            try:
                async with http.post(url + PATH, data=b"{}", headers=headers) as answer:
                    return f"{answer.status}" if await answer.read() else "empty"
            except aiohttp.ClientConnectorError:
                continue
            except (aiohttp.ClientError, TimeoutError) as error:
                return f"cut off: {type(error).__name__}"
        return "nobody there"

    async def client(http: aiohttp.ClientSession) -> None:
        while not stop.is_set():
            outcome = await ask(http)
            outcomes[outcome] += 1
            await asyncio.sleep(0 if outcome == "200" else 0.05)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CLIENTS)) as http:
        http._retry_connection = False  # it would hide a connection that was closed under a request
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(client(http))
            yield outcomes
            stop.set()


async def more(outcomes: Counter[str], count: int = 50) -> None:
    wanted = outcomes["200"] + count
    await eventually(lambda: outcomes["200"] >= wanted, within_seconds=60, every=0.01)


async def test_a_gateway_that_is_told_to_stop_cuts_nobody_off(start_clinic: StartClinic) -> None:
    async with start_clinic("billing") as clinic:
        settings = GatewaySettings(environment="test", upstreams=f"billing={clinic.urls['billing']}")
        gateway = create_app(settings)
        first = Serving(gateway, free_port(), gateway.health)
        async with traffic(first.url, str(clinic.http.base_url).rstrip("/")) as outcomes:
            await more(outcomes)
            await first.stop()
            await more(outcomes)
        assert outcomes.keys() == {"200"}
        assert outcomes.total() == len(clinic["billing"].seen)


async def test_a_service_that_is_restarted_cuts_nobody_off(start_clinic: StartClinic) -> None:
    """While it is away, requests are refused without effect; none is worked on and then left unanswered."""
    port = free_port()
    async with start_clinic("billing", upstreams=f"billing=http://127.0.0.1:{port}") as clinic:
        service = clinic["billing"]
        running = Serving(service, port)
        async with traffic(str(clinic.http.base_url).rstrip("/"), **{"Idempotency-Key": "k"}) as outcomes:
            for _ in range(2):
                await more(outcomes)
                await running.stop()
                running = Serving(service, port)
            await more(outcomes)
        await running.stop()
        assert outcomes.keys() <= {"200", "503"}
        assert len(service.seen) >= outcomes["200"]


async def read_answer(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.read(), 30)


async def test_who_connected_in_the_last_moment_is_answered(clinic: Clinic) -> None:
    port = free_port()
    running = Serving(clinic["billing"], port)
    await eventually(lambda: _listens(port))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    stopping = asyncio.create_task(running.stop())
    await eventually(lambda: _refuses(port), every=0.005)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = await read_answer(reader)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer
    writer.close()
    await stopping


async def _listens(port: int) -> bool:
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True
    return False


async def _refuses(port: int) -> bool:
    return not await _listens(port)


async def test_a_gateway_process_says_that_it_stops_and_finishes_what_it_began(
    start_clinic: StartClinic, reply: type[Reply]
) -> None:
    async with start_clinic("billing") as clinic:
        gate = asyncio.Event()
        clinic["billing"].replies = [reply(wait_for=gate)]
        async with gateway_process(clinic.urls["billing"]) as (url, process):
            async with httpx.AsyncClient(base_url=url, timeout=30) as http:
                slow = asyncio.create_task(http.post(PATH, content=b"{}"))
                await eventually(lambda: clinic["billing"].seen)
                process.send_signal(signal.SIGTERM)

                async def unready() -> httpx.Response | None:
                    answer = await http.get("/readyz")
                    return answer if answer.status_code == 503 else None

                answer = await eventually(unready, every=0.01)
                assert answer.headers["connection"] == "close"
                assert "this process is stopping" in answer.json()["reasons"]
                port = int(url.rpartition(":")[2])
                await eventually(lambda: _refuses(port), within_seconds=60)
                gate.set()
                assert (await slow).status_code == 200
            assert await asyncio.wait_for(process.wait(), 60) == 0


@asynccontextmanager
async def gateway_process(billing: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CLINIC_")},
        "CLINIC_HTTP_PORT": str(port),
        "CLINIC_UPSTREAMS": f"billing={billing}",
        "CLINIC_LOG_LEVEL": "ERROR",
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "clinic_gateway", env=environment)
    try:
        await eventually(lambda: _listens(port), within_seconds=60)
        yield f"http://127.0.0.1:{port}", process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
