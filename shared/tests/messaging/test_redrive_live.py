"""Redriving many messages holds up nobody: live ones pass while a run has a message in hand."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest
from clinic_shared import held
from clinic_shared.context import Context
from clinic_shared.database import Transaction
from clinic_shared.dead_letters import runs
from clinic_shared.dead_letters.run_worker import RedriveWorker
from clinic_shared.dead_letters.selection import Selection
from clinic_shared.deliveries import Consumer
from clinic_shared.envelope import Envelope
from clinic_shared.held import RawMessage
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.service import Runtime
from clinic_shared.testing import eventually

from .conftest import QUEUE, Behaviour, Journal, Queues
from .test_consumer import body, envelope, held_rows, put

pytestmark = pytest.mark.servers

MESSAGES = 500
BEFORE = 10


async def park_many(runtime: Runtime, count: int) -> list[Any]:
    """Park messages, each of a patient of its own; returns their rows."""
    async with runtime.database.transaction() as tx:
        for _ in range(count):
            key = uuid7()
            message = RawMessage(queue=QUEUE, headers=envelope(uuid7(), key).headers(), body=body(key))
            await held.park(tx, message, cause="planted", error="Planted")
    return await held_rows(runtime)


async def test_live_messages_take_effect_while_a_run_of_five_hundred_goes_on(
    consumer: Runtime,
    queues: Queues,
    journal: Journal,
    behaviour: Behaviour,
    looping: Callable[..., AbstractAsyncContextManager[None]],
) -> None:
    """The run stands still over its eleventh message until those that came meanwhile have taken effect.

    One of them is of a patient whose own message still waits for its turn in the run.
    """
    rows = await park_many(consumer, MESSAGES)
    stopped_at, waiting_key = rows[BEFORE].event_id, rows[-1].partition_key
    in_hand, go_on = asyncio.Event(), asyncio.Event()

    async def stop(tx: Transaction, one: Envelope) -> None:
        if one.id == stopped_at:
            in_hand.set()
            await go_on.wait()

    async def took_effect(event_id: object) -> bool:
        return event_id in {effect[0] for effect in await journal.effects(consumer)}

    behaviour.before = stop
    operator = Context(principal=Principal(subject=uuid7(), kind="staff"))
    async with consumer.database.transaction(operator) as tx:
        chosen = Selection(cause="planted", expected_count=MESSAGES)
        run_id = await runs.start(tx, chosen, rate_per_second=1000)
    async with looping(Consumer(consumer, QUEUE).run, RedriveWorker(consumer).run):
        await asyncio.wait_for(in_hand.wait(), 60)
        live = [await put(queues, uuid7()), await put(queues, waiting_key, 2)]
        for event_id in live:
            await eventually(partial(took_effect, event_id), within_seconds=60)
        async with consumer.database.transaction() as tx:
            assert (await runs.progress(tx, run_id)).waiting == MESSAGES - BEFORE
        go_on.set()

        async def goes_on() -> bool:
            return len(await journal.effects(consumer)) > 3 * BEFORE

        await eventually(goes_on, within_seconds=60)
        async with consumer.database.transaction(operator) as tx:
            await runs.cancel(tx, run_id)
    effects = [event_id for event_id, _, _ in await journal.effects(consumer)]
    redriven = [event_id for event_id in effects if event_id not in live]
    assert redriven == [row.event_id for row in rows[: len(redriven)]]
