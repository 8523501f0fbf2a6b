"""Services that fail, hang or come back, as a caller of the gateway meets them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from clinic_gateway.retries import RetryBudget
from clinic_shared.problems import OUTAGE_HEADER

if TYPE_CHECKING:
    from .conftest import Bearer, Clinic, Reply, StartClinic

OUT_OF_REACH = {"type": "/problems/temporarily-unavailable", "status": 503}
NOT_YET = {"type": "/problems/reference-not-yet-known", "status": 409}
HL7 = {"authorization": "Basic bGFiOng=", "content-type": "application/hl7-v2"}


async def kinds(clinic: Clinic, path: str, count: int, headers: dict[str, str]) -> list[str]:
    """Return the problem slugs of so many requests, one after the other."""
    answers = [await clinic.http.get(path, headers=headers) for _ in range(count)]
    return [answer.json().get("type", "").rsplit("/", 1)[-1] for answer in answers]


async def test_a_service_that_stays_down_is_given_a_rest(start_clinic: StartClinic, bearer: Bearer) -> None:
    async with start_clinic("scheduling", down=("billing",)) as clinic:
        headers = bearer()
        seen = await kinds(clinic, "/v1/invoices", 6, headers)
        assert (seen[0], seen[-1]) == ("service-down", "circuit-open")
        answer = await clinic.http.get("/v1/invoices", headers=headers)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert (await clinic.http.get("/v1/slots", headers=headers)).status_code == 200
        readiness = (await clinic.http.get("/readyz")).json()
        assert readiness["circuits"] == {"billing": "open"}
        metrics = (await clinic.http.get("/metrics")).text
        assert 'clinic_gateway_circuit_state{upstream="billing"} 2.0' in metrics


async def test_a_service_that_is_back_is_used_again(
    start_clinic: StartClinic, bearer: Bearer, reply: type[Reply]
) -> None:
    async with start_clinic("billing") as clinic:
        clinic["billing"].replies = [
            reply(503, OUT_OF_REACH, headers=[(OUTAGE_HEADER, "database")]) for _ in range(5)
        ]
        headers = bearer()
        seen = await kinds(clinic, "/v1/invoices", 6, headers)
        assert seen == ["temporarily-unavailable"] * 5 + ["circuit-open"]
        assert OUTAGE_HEADER.lower() not in (await clinic.http.get("/v1/invoices", headers=headers)).headers
        async with asyncio.timeout(60):
            while (await clinic.http.get("/v1/invoices", headers=headers)).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert await kinds(clinic, "/v1/invoices", 5, headers) == [""] * 5


@pytest.mark.parametrize("status", [400, 404, 409, 422, 500, 503])
async def test_answers_about_one_operation_say_nothing_about_the_service(
    start_clinic: StartClinic, bearer: Bearer, reply: type[Reply], status: int
) -> None:
    async with start_clinic("billing") as clinic:
        clinic["billing"].replies = [reply(status, {"type": "/problems/x"}) for _ in range(20)]
        assert await kinds(clinic, "/v1/invoices", 20, bearer()) == ["x"] * 20


async def test_intake_goes_on_while_everything_else_of_its_service_rests(
    start_clinic: StartClinic, bearer: Bearer, reply: type[Reply]
) -> None:
    """With its database down, lab-integration still takes messages in: onto its queue."""
    async with start_clinic("lab-integration") as clinic:
        clinic["lab-integration"].replies = [
            reply(503, OUT_OF_REACH, headers=[(OUTAGE_HEADER, "database")]) for _ in range(5)
        ]
        assert (await kinds(clinic, "/v1/lab/results", 6, bearer()))[-1] == "circuit-open"
        taken = await clinic.http.post("/v1/lab/messages", content=b"MSH|", headers=HL7)
        assert taken.status_code == 200


async def test_refused_messages_of_a_laboratory_never_open_the_circuit(
    start_clinic: StartClinic, reply: type[Reply]
) -> None:
    """With broker and database down, each is refused by the service itself, until the first is taken."""
    async with start_clinic("lab-integration") as clinic:
        clinic["lab-integration"].replies = [reply(503, body=b"MSH|...|AE") for _ in range(30)]
        for _ in range(30):
            refused = await clinic.http.post("/v1/lab/messages", content=b"MSH|", headers=HL7)
            assert (refused.status_code, refused.content) == (503, b"MSH|...|AE")
        taken = await clinic.http.post("/v1/lab/messages", content=b"MSH|", headers=HL7)
        assert taken.status_code == 200


async def test_callers_who_hang_up_or_send_too_much_dont_open_the_circuit(
    clinic: Clinic, bearer: Bearer
) -> None:
    async def too_much() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x" * 300_000

    headers = bearer() | {"content-type": "application/json"}
    for _ in range(8):
        answer = await clinic.http.post("/v1/patients", content=too_much(), headers=headers)
        assert answer.status_code == 413
    assert (await clinic.http.get("/v1/patients", headers=bearer())).status_code == 200


@asynccontextmanager
async def hanging_up(times: int) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A service that reads a request and closes the connection, so many times; then it answers 204."""
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        if len(seen) > times:
            writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [("GET", {}, 204), ("POST", {"idempotency-key": "k"}, 204), ("POST", {}, 502), ("DELETE", {}, 502)],
)
async def test_only_what_cant_take_effect_twice_is_sent_again(
    start_clinic: StartClinic, bearer: Bearer, method: str, headers: dict[str, str], status: int
) -> None:
    async with hanging_up(1) as (url, seen), start_clinic(upstreams=f"scheduling={url}") as clinic:
        answer = await clinic.http.request(method, "/v1/appointments", headers=bearer() | headers)
        assert (answer.status_code, len(seen)) == (status, 2 if status == 204 else 1)


async def test_a_request_is_sent_three_times_at_most(start_clinic: StartClinic, bearer: Bearer) -> None:
    async with hanging_up(10) as (url, seen), start_clinic(upstreams=f"scheduling={url}") as clinic:
        answer = await clinic.http.get("/v1/slots", headers=bearer())
        assert (answer.status_code, len(seen)) == (502, 3)


def test_retries_stay_a_tenth_of_the_requests() -> None:
    budget, granted = RetryBudget(0.1, 20), 0
    for number in range(10_000):
        budget.deposit(number / 1000)
        granted += budget.withdraw() + budget.withdraw()
    assert granted <= 20 + 1000 + 10 * 20 / 60


def test_a_quiet_service_has_a_retry_left_after_a_while() -> None:
    budget = RetryBudget(0.1, 20)
    while budget.withdraw():
        pass
    budget.deposit(1000.0)
    assert budget.withdraw()


async def test_when_events_dont_flow_the_waits_end_before_they_multiply_the_load(
    start_clinic: StartClinic, bearer: Bearer, reply: type[Reply], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clinic_gateway.guards.WAIT_RESERVE", 5)
    async with start_clinic("scheduling") as clinic:
        clinic["scheduling"].replies = [reply(409, NOT_YET) for _ in range(1000)]
        for _ in range(10):
            answer = await clinic.http.post("/v1/appointments", json={}, headers=bearer())
            assert answer.status_code == 409
        assert len(clinic["scheduling"].seen) <= 10 + 5 + 10


async def test_the_service_is_told_how_long_the_caller_still_waits(clinic: Clinic, bearer: Bearer) -> None:
    forged = {"x-clinic-deadline-ms": "999999"}
    await clinic.http.get("/v1/slots", headers=bearer() | forged)
    told = clinic["scheduling"].seen[0].header("x-clinic-deadline-ms")
    assert 19_000 < int(told or 0) <= 20_000


async def test_one_deadline_holds_for_all_tries_together(
    start_clinic: StartClinic, bearer: Bearer, reply: type[Reply]
) -> None:
    async with start_clinic("scheduling", deadline_seconds=0.4, reference_retry_seconds=5) as clinic:
        never = asyncio.Event()
        clinic["scheduling"].replies = [reply(409, NOT_YET), reply(409, NOT_YET), reply(wait_for=never)]
        answer = await clinic.http.post("/v1/appointments", json={}, headers=bearer())
        assert (answer.status_code, answer.json()["type"]) == (504, "/problems/service-timeout")
        told = [int(seen.header("x-clinic-deadline-ms") or 0) for seen in clinic["scheduling"].seen]
        assert 400 >= told[0] > told[1] > told[2] > 0
        never.set()


async def test_a_body_that_dribbles_in_is_given_up(start_clinic: StartClinic, bearer: Bearer) -> None:
    async with start_clinic("patients", deadline_seconds=0.2, document_deadline_seconds=0.2) as clinic:
        url = clinic.http.base_url
        for path in ("/v1/patients", "/v1/patients/1/documents"):
            reader, writer = await asyncio.open_connection(url.host, url.port)
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer()['authorization']}\r\n"
            length = 900 if path == "/v1/patients" else 900_000
            rest = f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{{"
            writer.write((head + rest).encode())
            answer = await asyncio.wait_for(reader.read(), 30)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"/problems/request-timeout" in answer
            writer.close()
            await writer.wait_closed()
