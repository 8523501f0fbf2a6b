"""What takes minutes: ten thousand laboratory messages that don't wait for each other, and memory over a long time."""

import asyncio
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from threading import Event

import aiohttp
from clinic_local.commands_status import memory_bytes
from clinic_local.state import RunState
from clinic_local.testing import System

from .figures import Figure, needs_patience
from .whole import (
    applied,
    book,
    database,
    known_patients,
    network_of,
    panel_of,
    post_all,
    register,
    registrar,
    wait_until,
)

MESSAGES = 10_000
PER_SECOND = 200
DRAINED_WITHIN_SECONDS = 900
SOAK_SECONDS = int(os.environ.get("BENCH_SOAK_SECONDS", "600"))
SOAK_PER_SECOND = 5
SAMPLE_SECONDS = 20
MEGABYTE = 1_000_000


@needs_patience
def lab_burst(system: System) -> list[Figure]:
    """Messages with ten results arrive at 200/s whether or not the ones before are answered, while workers drain."""
    network, numbers = network_of(system), known_patients(system)
    run = f"{time.time_ns():x}"
    messages = [panel_of(numbers[n % len(numbers)], f"BURST-{run}-{n}") for n in range(MESSAGES)]
    with database(system, "lab-integration") as lab:
        before, begun = applied(lab), time.monotonic()
        waits = asyncio.run(
            _arriving(system.url, (network.lab_client_id, network.lab_client_secret), messages)
        )
        wait_until(
            lambda: applied(lab) - before >= MESSAGES, every=0.2, within_seconds=DRAINED_WITHIN_SECONDS
        )
        rate = MESSAGES / (time.monotonic() - begun)
    p99 = sorted(waits)[int(len(waits) * 0.99)] * 1000
    name = f"{MESSAGES:,} messages with ten results arriving at {PER_SECOND}/s"
    return [
        Figure.ceiling(f"{name}: acknowledged, p99", p99, "ms", target=250),
        Figure.floor(f"{name}: into the chart", rate, "/s", target=60),
    ]


async def _arriving(url: str, credentials: tuple[str, str], messages: list[bytes]) -> list[float]:
    """Return how long each took from the instant it was due, its wait for a connection included."""
    began = time.monotonic()

    async def at_its_time(http: aiohttp.ClientSession, number: int, message: bytes) -> float:
        due = began + number / PER_SECOND
        await asyncio.sleep(max(0, due - time.monotonic()))
        async with http.post(f"{url}/v1/lab/messages", data=message) as answer:
            assert b"MSA|AA|" in await answer.read()
        return time.monotonic() - due

    async with aiohttp.ClientSession(
        auth=aiohttp.BasicAuth(*credentials), headers={"Content-Type": "application/hl7-v2"}
    ) as http:
        return await asyncio.gather(*(at_its_time(http, n, one) for n, one in enumerate(messages)))


@needs_patience
def soak(system: System) -> list[Figure]:
    """Results and bookings at a steady rate for ten minutes: is the last third's memory that of the one before?"""
    over = Event()
    with ThreadPoolExecutor(2) as people, ExitStack() as stack:
        stack.callback(over.set)
        working = [people.submit(_post_results, system, over), people.submit(_book_visits, system, over)]
        samples = list(_samples(system))
        over.set()
        for one in working:
            one.result()
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[-third:]
    growth = 100 * (sum(last) / len(last) / (sum(middle) / len(middle)) - 1)
    name = f"memory under {SOAK_PER_SECOND} results a second and bookings for {SOAK_SECONDS} s"
    return [
        Figure.ceiling(f"{name}: growth from the second third to the last", growth, "%", target=3),
        Figure.ceiling(f"{name}: at its end (PSS)", samples[-1] / MEGABYTE, "MB", target=800),
    ]


def _samples(system: System) -> Iterator[int]:
    """Yield the memory of all services and the gateway, again and again."""
    running = RunState.read(system.root)
    assert running is not None
    ours = [process.pid for process in running.processes if process.kind in {"service", "gateway"}]
    until = time.monotonic() + SOAK_SECONDS
    while time.monotonic() < until:
        time.sleep(SAMPLE_SECONDS)
        yield sum(memory_bytes(pid) or 0 for pid in ours)


def _post_results(system: System, over: Event) -> None:
    network, numbers = network_of(system), known_patients(system)
    run, posted = f"{time.time_ns():x}", 0
    while not over.wait(1):
        batch = [
            panel_of(numbers[n % len(numbers)], f"SOAK-{run}-{n}")
            for n in range(posted, posted + SOAK_PER_SECOND)
        ]
        post_all(system, network, batch)
        posted += len(batch)


def _book_visits(system: System, over: Event) -> None:
    network = network_of(system)
    with registrar(system) as caller:
        patient_id = register(caller, network)["patient_id"]
        again = partial(book, caller, network, patient_id)
        while not over.wait(1):
            again()
