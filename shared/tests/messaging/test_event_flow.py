"""The map of events: what flows over an edge, what waits there, and who is behind."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
from clinic_shared.app import create_app
from clinic_shared.auth import TokenSigner, claims_of
from clinic_shared.deliveries import Consumer
from clinic_shared.ids import uuid7
from clinic_shared.measuring import Measuring
from clinic_shared.principal import Principal
from clinic_shared.relay import Relay
from clinic_shared.service import Runtime
from clinic_shared.testing import eventually
from sqlalchemy import text

from .conftest import QUEUE, REGISTERED, Behaviour, Journal

pytestmark = pytest.mark.servers

Looping = Callable[..., AbstractAsyncContextManager[None]]
Ask = Callable[..., Any]


@pytest.fixture
def ask(signer: TokenSigner) -> Ask:
    """Return a function that asks a service for its event flow."""

    async def of(runtime: Runtime, *scopes: str) -> httpx.Response:
        principal = Principal(subject=uuid7(), kind="staff", network=True, scopes=frozenset(scopes))
        token = signer.sign(claims_of(principal, issued_at=runtime.clock.now()))
        transport = httpx.ASGITransport(app=create_app(runtime.service, runtime))
        async with httpx.AsyncClient(transport=transport, base_url="http://service.test") as http:
            return await http.get("/v1/ops/event-flow", headers={"Authorization": f"Bearer {token}"})

    return of


@asynccontextmanager
async def heard(*runtimes: Runtime) -> AsyncIterator[None]:
    """Let the workers of these services say what they see, once."""
    for runtime in runtimes:
        measuring = Measuring(runtime)
        await measuring.measure_once()
        await measuring.close()
    yield


async def flow_of(ask: Ask, runtime: Runtime) -> dict[str, Any]:
    answer = await ask(runtime, "ops.read")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def edge(document: dict[str, Any]) -> dict[str, Any]:
    (one,) = [one for one in document["subscriptions"] if one["queue"] == QUEUE]
    return dict(one)


def of_type(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return next(entry for entry in entries if entry["type"] == REGISTERED)


async def took_effect(journal: Journal, runtime: Runtime, count: int) -> None:
    async def reached() -> bool:
        return len(await journal.effects(runtime)) == count

    await eventually(reached, within_seconds=60)


async def test_both_ends_of_an_edge_tell_what_went_over_it(
    producer: Runtime, consumer: Runtime, journal: Journal, looping: Looping, ask: Ask
) -> None:
    async with looping(Relay(producer).run, Consumer(consumer, QUEUE).run):
        await journal.emit_many(producer, 12)
        await took_effect(journal, consumer, 12)
        await eventually(lambda: _is_empty(journal, producer))
        async with heard(producer, consumer):
            sending, taking = await flow_of(ask, producer), await flow_of(ask, consumer)
    published = of_type(sending["publications"])
    assert (published["published"], published["published_recently"]) == (12, 12)
    assert published["consumers"] == ["reporting"]  # of those that are installed
    assert sending["published_per_second"] == pytest.approx(published["per_second"])
    assert sending["published_per_second"] > 0
    applied = of_type(edge(taking)["types"])
    assert (applied["applied"], applied["applied_recently"]) == (12, 12)
    assert edge(taking)["per_second"] == taking["applied_per_second"] > 0
    assert (edge(taking)["lag_seconds"], taking["workers"]) == (0, 1)
    assert sending["accounted_until"] == taking["accounted_until"]


async def _is_empty(journal: Journal, runtime: Runtime) -> bool:
    return await journal.pending(runtime) == 0


async def test_a_service_without_a_worker_is_behind_by_what_waits_since_it_fell_silent(
    producer: Runtime, consumer: Runtime, journal: Journal, looping: Looping, ask: Ask
) -> None:
    assert (await flow_of(ask, consumer))["silent_seconds"] is None
    async with heard(consumer), looping(Relay(producer).run):
        await journal.emit_many(producer, 3)
        await eventually(lambda: _is_empty(journal, producer))
    async with consumer.database.transaction() as tx:
        await tx.execute(text("UPDATE worker_state SET measured_at = now() - interval '10 minutes'"))

    async def counted() -> Any:
        found = await flow_of(ask, consumer)
        return found if edge(found)["messages"] == 3 else None

    found = await eventually(counted, within_seconds=60, every=0.3)
    assert found["workers"] == 0
    assert 600 <= edge(found)["lag_seconds"] < 660


async def test_what_is_outside_the_stream_counts_as_held_or_parked(
    producer: Runtime,
    consumer: Runtime,
    journal: Journal,
    behaviour: Behaviour,
    looping: Looping,
    ask: Ask,
) -> None:
    bad = uuid7()
    behaviour.fail(bad, ConnectionError("the other side"))
    async with looping(Relay(producer).run, Consumer(consumer, QUEUE).run):
        await journal.emit(producer, key=bad)
        await journal.emit(producer)
        await took_effect(journal, consumer, 1)

        async def kept() -> Any:
            found = await flow_of(ask, consumer)
            return found if found["held"] + found["parked"] else None

        found = await eventually(kept)
    assert edge(found)["held"] + edge(found)["parked"] == 1
    kinds = of_type(edge(found)["types"])
    assert kinds["held"] + kinds["parked"] == kinds["kept_recently"] == 1


async def test_the_outbox_is_part_of_the_node(producer: Runtime, journal: Journal, ask: Ask) -> None:
    await journal.emit_many(producer, 2)
    found = await flow_of(ask, producer)
    assert found["outbox_pending"] == 2
    assert 0 < found["outbox_oldest_seconds"] < 60


async def test_reading_needs_the_permission_and_is_audited(consumer: Runtime, ask: Ask) -> None:
    assert (await ask(consumer, "patients.read")).status_code == 403
    assert (await ask(consumer, "ops.read")).status_code == 200
    async with consumer.database.transaction() as tx:
        rows = await tx.fetch_all(text("SELECT record FROM audit_outbox ORDER BY id"))
    assert [b"Operations.EventFlow" in row.record for row in rows] == [False, True]
