"""The application around the routes: ids, headers, health, description."""

import asyncio
import json
import re
from uuid import UUID, uuid4

import httpx
import pytest
from clinic_shared.app import OPERATIONAL_PATHS, create_app
from clinic_shared.auth import RemoteKeys, TokenVerifier
from clinic_shared.health import Health
from clinic_shared.service import running
from clinic_shared.settings import ServiceSettings
from clinic_shared.testing import eventually
from sqlalchemy import text
from starlette.responses import StreamingResponse

CANARY = "Kanareikina"


async def test_ids_of_the_caller_are_taken_over_when_they_are_uuids(probe, writer):
    request_id, correlation_id = uuid4(), uuid4()
    headers = {
        **probe.headers(writer), "X-Request-Id": str(request_id), "X-Correlation-Id": str(correlation_id),
    }  # fmt: skip
    answer = await probe.http.get("/v1/me", headers=headers)
    assert answer.headers["x-request-id"] == str(request_id)
    assert answer.json()["correlation_id"] == answer.headers["x-correlation-id"] == str(correlation_id)


ID = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"


@pytest.mark.parametrize("value", [CANARY, "", "1", f"{ID} ", f"{{{ID}}}", ID.replace("-", "")])
async def test_other_ids_are_replaced(probe, value):
    answer = await probe.http.get("/healthz", headers={"X-Request-Id": value, "X-Correlation-Id": value})
    for header in ("x-request-id", "x-correlation-id"):
        assert answer.headers[header] != value
        assert UUID(answer.headers[header]).version == 7


async def test_a_trace_is_carried_on_or_begun(probe, writer):
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for sent, kept in ((given, True), (CANARY, False), (given.replace("0af7", "0AF7"), False),
                       (f"00-{'0' * 32}-b7ad6b7169203331-01", False)):  # fmt: skip
        answer = await probe.http.get("/v1/me", headers={**probe.headers(writer), "traceparent": sent})
        traceparent = answer.json()["traceparent"]
        assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", traceparent)
        assert (traceparent == sent) is kept


async def test_no_answer_is_kept_by_caches_or_guessed_at_by_browsers(probe, writer):
    for answer in (
        await probe.http.get("/v1/me", headers=probe.headers(writer)),
        await probe.http.get("/v1/me"),
        await probe.http.get("/nowhere"),
    ):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_health_says_only_that_the_process_answers(probe):
    assert (await probe.http.get("/healthz")).json() == {"status": "ok"}


async def test_a_process_that_was_told_to_stop_is_not_ready(probe):
    Health.of(probe.runtime).stopping.set()
    answer = await probe.http.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]["process"]) == (503, "stopping")


async def test_a_service_with_database_migrations_and_keys_is_ready(probe):
    answer = await probe.http.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ready",
        "checks": {"process": "ok", "database": "ok", "migrations": "ok", "token keys": "ok"},
        "loops": {},
    }


async def test_what_hinders_a_loop_is_told_but_stops_no_requests(probe):
    Health.of(probe.runtime).report("relay", "the broker can't be reached")
    answer = await probe.http.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["loops"] == {"relay": "the broker can't be reached"}


async def test_a_missing_migration_is_a_reason(probe):
    async with probe.runtime.database.transaction() as transaction:
        await transaction.execute(text("DELETE FROM alembic_version"))
    answer = await probe.http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["migrations"] == "this release's migrations aren't all applied"


def settings_without_servers(**changes):
    return ServiceSettings(
        **{
            "environment": "test",
            "database_url": "postgresql://u:secret@127.0.0.1:1/db",
            "amqp_url": "amqp://x",
        }
        | changes
    )


async def test_an_unreachable_database_is_a_reason_and_no_secret(probe):
    async with running(probe.service, settings_without_servers()) as runtime:
        transport = httpx.ASGITransport(create_app(probe.service, runtime))
        async with httpx.AsyncClient(transport=transport, base_url="http://service.test") as client:
            answer = await client.get("/readyz")
            health = await client.get("/healthz")
    assert (answer.status_code, health.status_code) == (503, 200)
    assert answer.json()["checks"]["database"].startswith("unreachable")
    assert "secret" not in answer.text


async def test_keys_that_were_never_read_are_a_reason_and_are_read_at_start(probe):
    keys = json.dumps(probe.signer.public_jwks()).encode()

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(keys)}\r\n\r\n".encode() + keys)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    probe.runtime.verifier = TokenVerifier(RemoteKeys(url), issuer="x")
    app = create_app(probe.service, probe.runtime)
    async with (
        server,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service.test") as client,
    ):
        assert (await client.get("/readyz")).json()["checks"]["token keys"] != "ok"
        async with app.router.lifespan_context(app):
            await eventually(lambda: probe.runtime.verifier.source.loaded)
        assert (await client.get("/readyz")).json()["checks"]["token keys"] == "ok"


async def test_the_version_is_told(probe):
    assert (await probe.http.get("/version")).json()["service"] == "probe"


async def test_the_page_of_a_problem_says_cause_and_remedy(probe):
    answer = await probe.http.get("/problems/notes-full")
    assert "There are as many notes as there may be." in answer.text
    assert "Remove one first." in answer.text
    assert (await probe.http.get("/problems/nothing")).status_code == 404


async def test_the_description_says_what_the_routes_declare(probe):
    document = (await probe.http.get("/openapi.json")).json()
    write = document["paths"]["/v1/notes"]["post"]
    assert (write["operationId"], write["x-permission"]) == ("write_note", "notes.write")
    assert write["security"] == [{"bearer": []}]
    [key] = [p for p in write["parameters"] if p["name"] == "Idempotency-Key"]
    assert key["required"] is True
    assert document["paths"]["/v1/hl7"]["post"]["security"] == []
    assert "application/problem+json" in write["responses"]["default"]["content"]
    assert document["x-problems"]["idempotency-key-required"]["status"] == 400
    assert "HTTPValidationError" not in json.dumps(document)
    assert not OPERATIONAL_PATHS & document["paths"].keys()


async def test_interactive_pages_are_the_gateways_business(probe):
    for path in ("/docs", "/redoc"):
        assert (await probe.http.get(path)).status_code == 404


async def test_an_answer_that_breaks_off_closes_the_connection_without_a_word(probe):
    app = create_app(probe.service, probe.runtime)

    async def breaking():
        yield b"a"
        raise ValueError(CANARY)

    @app.get("/streamed")
    async def streamed() -> StreamingResponse:
        return StreamingResponse(breaking())

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service.test") as client:
        with pytest.raises(Exception, match=r"^$") as caught:
            await client.get("/streamed")
    assert type(caught.value).__name__ == "AnswerAbortedError"
    assert caught.value.__suppress_context__


async def test_a_caller_who_leaves_is_no_error(probe, writer):
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/notes", "query_string": b"", "root_path": "",
        "headers": [(k.lower().encode(), v.encode()) for k, v in probe.headers(writer).items()],
    }  # fmt: skip
    await create_app(probe.service, probe.runtime)(scope, receive, send)
    assert sent == []
