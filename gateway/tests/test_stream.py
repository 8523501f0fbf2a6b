"""`/v1/stream` as a client follows it, with events from a real broker."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import httpx
import orjson
import pytest
from clinic_gateway.settings import GatewaySettings
from clinic_gateway.stream import Listener
from clinic_shared.envelope import Envelope
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.testing import Servers, eventually
from clinic_shared.topology import event_exchange

from .conftest import SIGNER, Clinic, StartClinic, bearer, token_of

CANARY = "Канарейкина"
CENTRE = uuid4()
SCOPES = frozenset({"stream.read", "appointments.read"})


@dataclass
class Follower:
    """An EventSource."""

    lines: AsyncIterator[str]
    seen: list[dict[str, str]] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    retry: str = ""
    text: str = ""

    async def next(self) -> dict[str, str]:
        """Return the next event; raises StopAsyncIteration at the stream's end."""
        event: dict[str, str] = {}
        async for line in self.lines:
            self.text += line + "\n"
            if not line:
                if event.get("event"):
                    self.seen.append(event)
                    return event
                event = {}
            elif line.startswith(":"):
                self.comments.append(line)
            else:
                name, _, value = line.partition(": ")
                event[name] = value
                self.retry = value if name == "retry" else self.retry
        raise StopAsyncIteration


class Producers:
    """Publishes as the relays do."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.subject = uuid4()
        self.version = 0

    async def publish(
        self, event_type: str = "scheduling.appointment-booked.v1", *, centre: UUID = CENTRE, **data: Any
    ) -> UUID:
        self.version += 1
        event_id, now = uuid7(), datetime.now(UTC)
        producer = event_type.partition(".")[0]
        envelope = Envelope(
            id=event_id,
            source=producer,
            type=event_type,
            subject=self.subject,
            time=now,
            recorded_at=now,
            aggregate_version=self.version,
            partition_key=self.subject,
            correlation_id=uuid7(),
        )
        body = {
            "data": {"centre_id": str(centre), "patient_id": str(uuid4()), **data},
            "private": {"family": CANARY},
        }
        exchange = await self._channel.get_exchange(event_exchange(producer), ensure=False)
        message = aio_pika.Message(orjson.dumps(body), headers=dict(envelope.headers()))
        await exchange.publish(message, routing_key=event_type, mandatory=False)
        return event_id


@pytest.fixture
async def producers(vhost: Servers) -> AsyncIterator[Producers]:
    connection = await aio_pika.connect(vhost.amqp_url)
    async with connection:
        channel = await connection.channel()
        for producer in ("identity", "scheduling", "patients"):
            await channel.declare_exchange(event_exchange(producer), "topic", durable=True)
        yield Producers(channel)


@pytest.fixture
async def start(
    vhost: Servers, start_clinic: StartClinic, producers: Producers
) -> Callable[..., Any]:  # declares the exchanges
    @asynccontextmanager
    async def started(**settings: Any) -> AsyncIterator[Clinic]:
        from clinic_shared.contracts import CONTRACTS_DIR

        given = {"amqp_url": vhost.amqp_url, "contracts_dir": CONTRACTS_DIR, **settings}
        async with start_clinic("identity", "scheduling", "patients", **given) as clinic:

            async def listening() -> bool:
                document = (await clinic.http.get("/readyz")).json()
                return not [reason for reason in document["reasons"] if reason.startswith("stream")]

            await eventually(listening)
            yield clinic

    return started


def reader(**changes: Any) -> dict[str, str]:
    return bearer(**{"scopes": SCOPES, "centre_ids": frozenset({CENTRE}), **changes})


@asynccontextmanager
async def following(
    clinic: Clinic, headers: dict[str, str] | None = None, last: object = None
) -> AsyncIterator[Follower]:
    sent = reader() if headers is None else headers
    if last is not None:
        sent = sent | {"last-event-id": str(last)}
    async with clinic.http.stream("GET", "/v1/stream", headers=sent) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Follower(answer.aiter_lines())


Start = Callable[..., Any]


async def ends(follower: Follower) -> bool:
    try:
        await asyncio.wait_for(follower.next(), 30)
    except StopAsyncIteration:
        return True
    return False


async def test_a_change_is_told_by_ids_type_and_version_only(start: Start, producers: Producers) -> None:
    async with start() as clinic, following(clinic) as follower:
        event_id = await producers.publish()
        told = await follower.next()
    assert told["id"] == str(event_id)
    assert told["event"] == "change"
    assert orjson.loads(told["data"]) == {
        "type": "scheduling.appointment-booked.v1",
        "subject": str(producers.subject),
        "version": 1,
    }
    assert CANARY not in follower.text
    assert int(follower.retry) > 0


async def test_only_what_the_caller_may_read_is_told(start: Start, producers: Producers) -> None:
    async with start() as clinic, following(clinic) as follower:
        await producers.publish("patients.encounter-recorded.v1")
        await producers.publish(centre=uuid4())
        await producers.publish("identity.session-revoked.v1")
        mine = await producers.publish()
        assert (await follower.next())["id"] == str(mine)


async def test_who_comes_back_gets_what_was_missed(start: Start, producers: Producers) -> None:
    async with start() as clinic:
        async with following(clinic) as follower:
            await producers.publish()
            last = (await follower.next())["id"]
        missed = [str(await producers.publish()) for _ in range(3)]
        await producers.publish(centre=uuid4())

        async def heard() -> bool:
            async with following(clinic) as probe:
                await producers.publish()
                return bool(await probe.next())

        assert await heard()
        async with following(clinic, last=last) as again:
            assert [(await again.next())["id"] for _ in missed] == missed


@pytest.mark.parametrize("last", [uuid7(), "rubbish"])
async def test_who_was_away_too_long_is_told_to_begin_anew(
    start: Start, producers: Producers, last: object
) -> None:
    async with start() as clinic, following(clinic, last=last) as follower:
        assert (await follower.next())["event"] == "reset"
        newest = await producers.publish()
        assert (await follower.next())["id"] == str(newest)


async def test_after_a_gap_in_what_we_heard_everybody_begins_anew(
    start: Start, producers: Producers, vhost: Servers
) -> None:
    async with start() as clinic, following(clinic) as follower:
        await producers.publish()
        await follower.next()
        await close_connections(vhost, "clinic-gateway stream")
        assert (await follower.next())["event"] == "reset"
        again = await producers.publish()
        assert (await follower.next())["id"] == str(again)


async def close_connections(vhost: Servers, name: str) -> None:
    async with httpx.AsyncClient(base_url=vhost.management_url, trust_env=False, timeout=60) as management:
        host = vhost.amqp_url.rpartition("/")[2]

        async def closed() -> bool:
            found = (await management.get("/api/connections")).json()
            ours = [
                one["name"]
                for one in found
                if one.get("vhost") == host
                and one.get("client_properties", {}).get("connection_name") == name
            ]
            for one in ours:
                await management.delete(f"/api/connections/{one}")
            return bool(ours)

        await eventually(closed, within_seconds=60, every=0.2)


async def test_a_changed_password_at_the_broker_is_taken_from_its_file(
    start: Start, producers: Producers, vhost: Servers, tmp_path: Path
) -> None:
    name, file = f"somebody-{uuid4().hex}", tmp_path / "clinic_amqp_url"
    host = vhost.amqp_url.rpartition("@")[2]
    async with httpx.AsyncClient(base_url=vhost.management_url, trust_env=False, timeout=60) as management:

        async def set_password(password: str) -> None:
            user = {"password": password, "tags": ""}
            (await management.put(f"/api/users/{name}", json=user)).raise_for_status()
            file.write_text(f"amqp://{name}:{password}@{host}", encoding="utf-8")

        await set_password("first")
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        path = f"/api/permissions/{host.rpartition('/')[2]}/{name}"
        (await management.put(path, json=everything)).raise_for_status()
        try:
            environ = {"CLINIC_SECRETS_DIR": str(tmp_path)}
            given = {"amqp_url": f"amqp://{name}:first@{host}", "secrets_dir": tmp_path}
            async with (
                start(reread=lambda: GatewaySettings.from_environ(environ), **given) as clinic,
                following(clinic) as follower,
            ):
                await set_password("second")
                await close_connections(vhost, "clinic-gateway stream")
                assert (await follower.next())["event"] == "reset"
                again = await producers.publish()
                assert (await follower.next())["id"] == str(again)
        finally:
            await management.delete(f"/api/users/{name}")


async def test_silence_is_filled_with_heartbeats(start: Start) -> None:
    async with start(stream_heartbeat_seconds=0.05) as clinic, following(clinic) as follower:
        waiting = asyncio.create_task(follower.next())
        await eventually(lambda: len(follower.comments) > 2)
        waiting.cancel()


async def test_a_stream_ends_with_its_token(start: Start) -> None:
    claims = {"sub": str(uuid4()), "kind": "staff", "scope": " ".join(SCOPES), "jti": "x"}
    now = int(time.time())
    token = SIGNER.sign({**claims, "iat": now - 298, "nbf": now - 298, "exp": now + 2})
    headers = {"authorization": f"Bearer {token}"}
    async with start() as clinic, following(clinic, headers) as follower:
        assert await ends(follower)


async def test_a_revoked_session_hears_nothing_more(start: Start, producers: Producers) -> None:
    session = uuid4()
    async with start() as clinic, following(clinic, reader(session_id=session)) as follower:
        await producers.publish()
        await follower.next()
        clinic.revocations.revoke_session(session, until=datetime.now(UTC) + timedelta(minutes=5))
        await producers.publish()
        assert await ends(follower)


async def test_it_takes_a_token_and_the_scope(clinic: Clinic) -> None:
    assert (await clinic.http.get("/v1/stream")).status_code == 401
    answer = await clinic.http.get("/v1/stream", headers=bearer(scopes=frozenset({"appointments.read"})))
    assert answer.status_code == 403
    assert answer.json()["permission"] == "stream.read"


async def test_streams_of_one_account_are_limited(start: Start) -> None:
    headers = {"authorization": f"Bearer {token_of(scopes=SCOPES)}"}
    async with start(streams_per_subject=2) as clinic:
        async with following(clinic, headers), following(clinic, headers):
            refused = await clinic.http.get("/v1/stream", headers=headers)
            assert refused.status_code == 429
            assert refused.json()["type"].endswith("/too-many-streams")

        async def free() -> bool:
            async with clinic.http.stream("GET", "/v1/stream", headers=headers) as answer:
                return bool(answer.status_code == 200)

        await eventually(free)


async def test_a_stopping_gateway_ends_its_streams(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    from clinic_gateway import app

    made = []
    original = app.Gateway.__init__

    def remember(self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        made.append(self)

    monkeypatch.setattr(app.Gateway, "__init__", remember)
    async with start() as clinic, following(clinic) as follower:
        made[-1].health.stopping.set()
        assert await ends(follower)


async def test_who_falls_behind_begins_anew() -> None:
    from .test_changes import change

    principal = Principal(subject=uuid4(), kind="staff", scopes=SCOPES, network=True)
    listener = Listener(principal, 3)
    for _ in range(4):
        listener.tell(change())
    later = change()
    listener.tell(later)
    assert await listener.next() is None
    assert await listener.next() == later
