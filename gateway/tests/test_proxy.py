from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import httpx
import pytest

if TYPE_CHECKING:
    from .conftest import Bearer, Clinic, Reply, StartClinic

MEBIBYTE = 1024 * 1024
NOT_YET = {"type": "/problems/reference-not-yet-known", "title": "x", "status": 409}


async def test_a_request_arrives_as_it_was_sent(clinic: Clinic, bearer: Bearer) -> None:
    answer = await clinic.http.put(
        "/v1/appointments/%D0%90%20b?from=2026-03-02&x=%2F&empty=",
        content=b'{ "a" : 1 }',
        headers=bearer() | {"content-type": "application/json", "idempotency-key": "k", "if-match": '"1"'},
    )
    assert answer.json() == {"service": "scheduling"}
    (seen,) = clinic["scheduling"].seen
    assert (seen.method, seen.target) == (
        "PUT",
        "/v1/appointments/%D0%90%20b?from=2026-03-02&x=%2F&empty=",
    )
    assert seen.body == b'{ "a" : 1 }'
    assert (seen.header("idempotency-key"), seen.header("if-match")) == ("k", '"1"')


async def test_the_token_travels_on(clinic: Clinic, bearer: Bearer) -> None:
    headers = bearer()
    await clinic.http.get("/v1/slots", headers=headers)
    assert clinic["scheduling"].seen[0].header("authorization") == headers["authorization"]


async def test_hop_by_hop_and_internal_headers_dont_pass(clinic: Clinic, bearer: Bearer) -> None:
    forged = {
        "connection": "keep-alive, x-secret",
        "x-secret": "1",
        "te": "trailers",
        "keep-alive": "timeout=5",
        "x-user-id": "root",
        "x-internal-roles": "all",
        "x-forwarded-for": "1.2.3.4",
        "x-forwarded-host": "evil.example.org",
        "forwarded": "for=1.2.3.4",
    }
    await clinic.http.get("/v1/slots", headers=bearer() | forged)
    names = [name for name, _ in clinic["scheduling"].seen[0].headers]
    assert not {"x-secret", "te", "keep-alive", "x-user-id", "x-internal-roles", "forwarded"} & set(names)
    assert clinic["scheduling"].seen[0].header("x-forwarded-for") == "127.0.0.1"
    assert clinic["scheduling"].seen[0].header("x-forwarded-host") == clinic.http.base_url.netloc.decode()


async def test_the_answers_hop_by_hop_headers_dont_come_back(
    clinic: Clinic, bearer: Bearer, reply: type[Reply]
) -> None:
    headers = [("keep-alive", "timeout=9"), ("connection", "x-inner"), ("x-inner", "1"), ("etag", '"7"')]
    clinic["scheduling"].replies = [reply(document={}, headers=[*headers, ("server", "inner/1")])]
    answer = await clinic.http.get("/v1/slots", headers=bearer())
    assert answer.headers["etag"] == '"7"'
    assert not {"keep-alive", "x-inner", "server"} & set(answer.headers)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


async def test_several_cookies_and_statuses_come_back_unchanged(clinic: Clinic, reply: type[Reply]) -> None:
    cookies = [("set-cookie", "a=1"), ("set-cookie", "b=2"), ("location", "/elsewhere")]
    clinic["identity"].replies = [reply(302, {}, headers=cookies)]
    answer = await clinic.http.post("/v1/auth/login", json={})
    assert answer.status_code == 302
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert answer.headers["location"] == "/elsewhere"


async def test_a_compressed_answer_passes_untouched(
    clinic: Clinic, bearer: Bearer, reply: type[Reply]
) -> None:
    body = bytes.fromhex("1f8b0800000000000003ab56ca4d2d2e4e4c4f55b2522ad6513200")
    clinic["scheduling"].replies = [reply(body=body, headers=[("content-encoding", "gzip")])]
    async with clinic.http.stream("GET", "/v1/slots", headers=bearer()) as answer:
        assert b"".join([chunk async for chunk in answer.aiter_raw()]) == body


async def test_head_has_headers_and_no_body(clinic: Clinic, bearer: Bearer) -> None:
    answer = await clinic.http.head("/v1/slots", headers=bearer())
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


async def test_request_ids_are_made_passed_on_and_returned(clinic: Clinic, bearer: Bearer) -> None:
    answer = await clinic.http.get("/v1/slots", headers=bearer())
    made = UUID(answer.headers["x-request-id"])
    assert made.version == 7
    assert clinic["scheduling"].seen[0].header("x-request-id") == str(made)


async def test_only_a_well_formed_request_id_is_taken_over(clinic: Clinic, bearer: Bearer) -> None:
    given = str(uuid4())
    kept = await clinic.http.get("/v1/slots", headers=bearer() | {"x-request-id": given})
    replaced = await clinic.http.get("/v1/slots", headers=bearer() | {"x-request-id": "Testova Anna"})
    assert kept.headers["x-request-id"] == given
    assert UUID(replaced.headers["x-request-id"]).version == 7


async def test_a_trace_is_continued_or_begun(clinic: Clinic, bearer: Bearer) -> None:
    given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    for trace in (given, "00-" + "0" * 32 + "-00f067aa0ba902b7-01"):
        await clinic.http.get("/v1/slots", headers=bearer() | {"traceparent": trace})
    continued, begun = (seen.header("traceparent") for seen in clinic["scheduling"].seen)
    assert continued == given
    assert re.fullmatch(r"00-(?!0{32})[0-9a-f]{32}-[0-9a-f]{16}-00", begun or "")


async def test_large_bodies_stream_both_ways(clinic: Clinic, bearer: Bearer, reply: type[Reply]) -> None:
    clinic["patients"].replies = [reply(chunks=[b"y" * MEBIBYTE] * 8)]

    async def upload() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * MEBIBYTE

    answer = await clinic.http.post("/v1/patients/1/documents", content=upload(), headers=bearer())
    assert len(clinic["patients"].seen[0].body) == 20 * MEBIBYTE
    assert len(answer.content) == 8 * MEBIBYTE


async def test_an_answer_starts_before_it_is_complete(
    clinic: Clinic, bearer: Bearer, reply: type[Reply]
) -> None:
    gate = asyncio.Event()
    clinic["scheduling"].replies = [reply(chunks=[b"first", b"last"], wait_between=gate)]
    async with clinic.http.stream("GET", "/v1/slots", headers=bearer()) as answer:
        chunks = answer.aiter_raw()
        assert await anext(chunks) == b"first"
        gate.set()
        assert await anext(chunks) == b"last"


@pytest.mark.parametrize(
    ("path", "size"),
    [
        ("/v1/patients", MEBIBYTE + 1),
        ("/v1/lab/messages", 10 * MEBIBYTE + 1),
        ("/v1/webhooks/payments/x", MEBIBYTE + 1),
    ],
)
async def test_a_body_over_its_limit_is_refused_before_it_is_passed_on(
    clinic: Clinic, bearer: Bearer, path: str, size: int
) -> None:
    headers = bearer() | {"content-type": "application/json"}
    answer = await clinic.http.post(path, content=b"x" * size, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/body-too-large")
    assert answer.json()["max_bytes"] == size - 1
    assert not any(service.seen for service in clinic.services.values())


async def test_a_body_without_a_length_is_counted_on_its_way(clinic: Clinic, bearer: Bearer) -> None:
    async def upload() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x" * (MEBIBYTE // 4 + 1)

    headers = bearer() | {"content-type": "application/json"}
    answer = await clinic.http.post("/v1/patients", content=upload(), headers=headers)
    assert answer.status_code == 413
    assert not any(len(seen.body) > MEBIBYTE for seen in clinic["patients"].seen)


async def test_a_lab_message_of_ten_mebibytes_passes(clinic: Clinic) -> None:
    headers = {"authorization": "Basic bGFiOng=", "content-type": "application/hl7-v2"}
    answer = await clinic.http.post("/v1/lab/messages", content=b"x" * 10 * MEBIBYTE, headers=headers)
    assert answer.status_code == 200
    assert len(clinic["lab-integration"].seen[0].body) == 10 * MEBIBYTE


async def test_a_body_of_the_wrong_type_is_refused(clinic: Clinic, bearer: Bearer) -> None:
    answer = await clinic.http.post(
        "/v1/patients", content=b"<x/>", headers=bearer() | {"content-type": "text/xml"}
    )
    assert answer.status_code == 415
    assert "application/json" in answer.json()["supported"]


async def test_a_reference_that_arrives_a_moment_later_is_waited_for(
    clinic: Clinic, bearer: Bearer, reply: type[Reply]
) -> None:
    clinic["scheduling"].replies = [reply(409, NOT_YET, headers=[("retry-after", "1")]) for _ in range(3)]
    answer = await clinic.http.post("/v1/appointments", json={"patient_id": "1"}, headers=bearer())
    assert (answer.status_code, answer.json()) == (200, {"service": "scheduling"})
    bodies = {seen.body for seen in clinic["scheduling"].seen}
    assert (len(clinic["scheduling"].seen), len(bodies)) == (4, 1)


async def test_the_wait_for_a_reference_ends_after_two_seconds(
    clinic: Clinic, bearer: Bearer, reply: type[Reply]
) -> None:
    clinic["scheduling"].replies = [reply(409, NOT_YET, headers=[("retry-after", "1")]) for _ in range(100)]
    started = time.monotonic()
    answer = await clinic.http.post("/v1/appointments", json={}, headers=bearer())
    assert (answer.status_code, answer.json()) == (409, NOT_YET)
    assert answer.headers["retry-after"] == "1"
    assert 1 < time.monotonic() - started < 10


async def test_other_conflicts_are_answered_at_once(
    clinic: Clinic, bearer: Bearer, reply: type[Reply]
) -> None:
    taken = {"type": "/problems/slot-taken", "status": 409}
    clinic["scheduling"].replies = [reply(409, taken)]
    answer = await clinic.http.post("/v1/appointments", json={}, headers=bearer())
    assert (answer.status_code, len(clinic["scheduling"].seen)) == (409, 1)


@pytest.mark.parametrize("body", [b"not json", b"[]", b'{"type": 7}', b""])
async def test_a_conflict_that_isnt_a_problem_is_passed_back(
    clinic: Clinic, bearer: Bearer, reply: type[Reply], body: bytes
) -> None:
    clinic["scheduling"].replies = [reply(409, body=body)]
    answer = await clinic.http.post("/v1/appointments", json={}, headers=bearer())
    assert (answer.status_code, answer.content) == (409, body)


async def test_a_service_that_is_down_is_said_to_be(clinic: Clinic, bearer: Bearer) -> None:
    answer = await clinic.http.get("/v1/referrals", headers=bearer())
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/service-down")
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["service"] == "referrals"


async def test_a_service_that_was_left_out_is_said_to_be(clinic: Clinic, bearer: Bearer) -> None:
    answer = await clinic.http.get("/v1/reports/centres", headers=bearer())
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-installed")


async def test_a_service_that_hangs_is_given_up(
    start_clinic: StartClinic, bearer: Bearer, reply: type[Reply]
) -> None:
    async with start_clinic("scheduling", answer_timeout_seconds=0.1) as clinic:
        never = asyncio.Event()
        clinic["scheduling"].replies = [reply(wait_for=never)]
        answer = await clinic.http.get("/v1/slots", headers=bearer())
        assert (answer.status_code, answer.json()["type"]) == (504, "/problems/service-timeout")
        never.set()


async def test_an_answer_that_breaks_off_doesnt_look_complete(
    clinic: Clinic, bearer: Bearer, reply: type[Reply]
) -> None:
    clinic["scheduling"].replies = [reply(chunks=[b"x" * 70_000, b"y"], break_off=True)]
    with pytest.raises(httpx.RemoteProtocolError):
        await clinic.http.get("/v1/slots", headers=bearer())


async def test_a_connection_lost_before_the_answer_is_a_bad_gateway(
    start_clinic: StartClinic, bearer: Bearer
) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, start_clinic(upstreams=f"scheduling={url}") as clinic:
        answer = await clinic.http.post("/v1/appointments", json={}, headers=bearer())
        assert (answer.status_code, answer.json()["type"]) == (502, "/problems/bad-gateway")


async def test_the_gateway_recovers_with_its_service(start_clinic: StartClinic, bearer: Bearer) -> None:
    from clinic_gateway.settings import GatewaySettings

    assert GatewaySettings.model_fields["connect_timeout_seconds"].default <= 2
    async with start_clinic("scheduling", down=("billing",)) as clinic:
        assert (await clinic.http.get("/v1/invoices", headers=bearer())).status_code == 503
        assert (await clinic.http.get("/v1/slots", headers=bearer())).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/slots/../patients",
        "/v1//slots",
        "/v1/slots/%2e%2e/x",
        "/v1/slots/.",
        "/v1/slots%00",
        "/v1\\slots",
    ],
)
async def test_an_ambiguous_path_is_refused(clinic: Clinic, bearer: Bearer, path: str) -> None:
    status = await raw_status(clinic, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status == 400
    assert not any(service.seen for service in clinic.services.values())


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /v1/slots HTTP/1.1\r\n", 400),
        ("GET /v1/slots HTTP/1.1\r\nHost: a\r\nHost: b\r\n", 400),
        ("GET /v1/slots HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\nAuthorization: Basic y\r\n", 400),
        ("GET /v1/slots HTTP/1.1\r\nHost: a\r\nX-Large: " + "x" * 40_000 + "\r\n", 431),
        ("POST /v1/slots HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n", 400),
    ],
)
async def test_a_malformed_request_is_refused(clinic: Clinic, head: str, status: int) -> None:
    assert await raw_status(clinic, head + "\r\n") == status


async def raw_status(clinic: Clinic, request: str) -> int:
    url = clinic.http.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(request.encode("latin-1"))
    line = await asyncio.wait_for(reader.readline(), 30)
    writer.close()
    await writer.wait_closed()
    return int(line.split()[1])


async def test_an_unknown_path_is_a_problem(clinic: Clinic) -> None:
    answer = await clinic.http.get("/v1/nothing")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json()["type"] == "/problems/unknown-path"
    assert answer.json()["instance"] == f"urn:uuid:{answer.headers['x-request-id']}"


async def test_fhir_callers_get_an_operation_outcome(clinic: Clinic) -> None:
    answer = await clinic.http.get("/fhir/R4/Patient/1")
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/fhir+json")
    assert answer.json()["resourceType"] == "OperationOutcome"
    assert answer.json()["issue"][0]["code"] == "login"


async def test_a_client_that_hangs_up_while_sending_leaves_the_gateway_working(
    clinic: Clinic, bearer: Bearer
) -> None:
    url = clinic.http.base_url
    _, writer = await asyncio.open_connection(url.host, url.port)
    token = bearer()["authorization"]
    writer.write(
        f"POST /v1/patients HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n"
        "Content-Type: application/json\r\nContent-Length: 900000\r\n\r\n{".encode()
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await clinic.http.get("/v1/slots", headers=bearer())).status_code == 200
