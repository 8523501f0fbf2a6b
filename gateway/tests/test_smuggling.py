"""Requests that two servers could read differently (RFC 9112, 6 and 11.2), and senders that never end."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Bearer, Clinic

SMUGGLED = "GET /v1/patients HTTP/1.1\r\nHost: x\r\n\r\n"
AMBIGUOUS = {
    "length and chunks": ("Content-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    "chunks and length": ("Transfer-Encoding: chunked\r\nContent-Length: 6", "0\r\n\r\n"),
    "two lengths": ("Content-Length: 1\r\nContent-Length: 5", "12345"),
    "a list of lengths": ("Content-Length: 1, 5", "12345"),
    "a length with a sign": ("Content-Length: +5", "12345"),
    "a negative length": ("Content-Length: -1", ""),
    "a length in hexadecimal": ("Content-Length: 0x5", "12345"),
    "an unknown coding": ("Transfer-Encoding: xchunked", "0\r\n\r\n"),
    "a coding after chunked": ("Transfer-Encoding: chunked, identity", "0\r\n\r\n"),
    "a space before the colon": ("Transfer-Encoding : chunked", "0\r\n\r\n"),
    "a chunk of no size": ("Transfer-Encoding: chunked", "zz\r\nabc\r\n0\r\n\r\n"),
}


async def answers_to(clinic: Clinic, request: str) -> bytes:
    """Send, and read until the server closes or has been silent for a while."""
    url = clinic.http.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(request.encode("latin-1"))
    told = b""
    try:
        while part := await asyncio.wait_for(reader.read(65536), 2 if told else 60):
            told += part
    except TimeoutError:
        pass
    writer.close()
    return told


@pytest.mark.parametrize(("headers", "body"), AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
async def test_what_two_servers_could_read_differently_is_refused(
    clinic: Clinic, bearer: Bearer, headers: str, body: str
) -> None:
    request = (
        f"POST /v1/appointments HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer()['authorization']}\r\n"
        f"Content-Type: application/json\r\n{headers}\r\n\r\n{body}{SMUGGLED}"
    )
    told = await answers_to(clinic, request)
    assert told.startswith(b"HTTP/1.1 4"), told[:80]
    assert clinic["scheduling"].seen == []
    assert clinic["patients"].seen == []


@pytest.mark.parametrize(
    "line",
    [
        "GET @evil.example/v1/slots HTTP/1.1",
        "GET http://evil.example/v1/slots HTTP/1.1",
        "GET /v1/slots HTTP/9.9",
        "GET /v1/slots\tHTTP/1.1",
        "CONNECT 127.0.0.1:5432 HTTP/1.1",
        "GET  /v1/slots HTTP/1.1 HTTP/1.1",
    ],
)
async def test_no_other_target_is_asked(clinic: Clinic, line: str) -> None:
    """Without a token: what isn't refused as malformed is refused as unknown."""
    told = await answers_to(clinic, f"{line}\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert told[9:10] == b"4", told[:80]
    assert not any(service.seen for service in clinic.services.values())


async def test_who_never_ends_a_request_keeps_nobody_waiting(clinic: Clinic, bearer: Bearer) -> None:
    url = clinic.http.base_url
    async with AsyncExitStack() as stack:
        for _ in range(200):
            _, writer = await asyncio.open_connection(url.host, url.port)
            stack.callback(writer.close)
            writer.write(b"GET /v1/slots HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        answer = await clinic.http.get("/v1/slots", headers=bearer())
        assert answer.status_code == 200
