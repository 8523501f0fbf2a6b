"""Addresses that others name: the public internet and the operator's networks, whatever is tried (SSRF)."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
from clinic_shared.destinations import (
    LOOPBACK,
    DestinationRefusedError,
    Destinations,
    GuardedTransport,
    networks_of,
)

INSIDE = [
    "127.0.0.1",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",  # noqa: S104
    "224.0.0.1",
    "::1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "fe80::1",
    "fc00::1",
]


def written(address: str) -> str:
    return f"[{address}]" if ":" in address else address


@dataclass
class Listener:
    port: int = 0
    connections: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        await writer.drain()
        writer.close()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    made = Listener()
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made


@pytest.mark.parametrize(
    "url",
    [
        *(f"https://{written(address)}/x" for address in INSIDE),
        *(f"mllp://{written(address)}:2575" for address in INSIDE),
        "https://127.1/x",
        "https://2130706433/x",
        "https://0x7f000001/x",
        "https://0177.0.0.1/x",
        "https://①②⑦.⓪.⓪.①/x",
        "https://user:secret@lab.example.org/x",  # pragma: allowlist secret
        "https://lab.example.org:22/x",
        "mllp://lab.example.org:25",
        "https://93.184.215.14:22/x",
        "https://lab.example.org\\@10.0.0.1/",
        "https://lab.example.org:abc/x",
        "file:///etc/passwd",
        "https:///x",
        "",
    ],
)
def test_an_address_that_leads_inside_is_not_taken(url: str) -> None:
    with pytest.raises(DestinationRefusedError):
        Destinations().check(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://lab.example.org/x",
        "mllps://lab:2575",
        "http://93.184.215.14:8080",
        "https://[2606:4700::1111]",
    ],
)
def test_the_address_of_a_laboratory_is_taken(url: str) -> None:
    Destinations().check(url)


def test_inside_the_networks_that_the_operator_names_any_port_counts() -> None:
    house = Destinations(networks_of("10.20.0.0/16, fd00:20::/32"))
    for url in ("mllp://10.20.0.7:104", "http://[fd00:20::7]", "https://93.184.215.14"):
        house.check(url)
    for url in ("mllp://10.21.0.7:2575", "https://127.0.0.1", "https://93.184.215.14:22"):
        with pytest.raises(DestinationRefusedError):
            house.check(url)


@pytest.mark.parametrize(
    "addresses", [*([one] for one in INSIDE), ["93.184.215.14", "10.0.0.1"], []], ids=str
)
async def test_a_name_that_leads_inside_is_not_connected_to(listener: Listener, addresses: list[str]) -> None:
    async def resolver(_host: str, _port: int) -> list[str]:
        return addresses

    guarded = GuardedTransport(Destinations(resolver=resolver))
    async with httpx.AsyncClient(transport=guarded, trust_env=False) as http:
        with pytest.raises(DestinationRefusedError):
            await http.get(f"http://lab.example.org:{listener.port}/x")
    assert listener.connections == 0


async def test_a_second_answer_of_the_name_server_changes_nothing(listener: Listener) -> None:
    answers = [["127.0.0.1"], ["10.0.0.1"]]

    async def resolver(_host: str, _port: int) -> list[str]:
        return answers.pop(0)

    guarded = GuardedTransport(Destinations(LOOPBACK, resolver=resolver))
    async with httpx.AsyncClient(transport=guarded, trust_env=False) as http:
        url = f"http://lab.example.org:{listener.port}/x"
        first = await http.get(url)
        with pytest.raises(DestinationRefusedError):
            await http.get(url)
    # Asked once for the first connection, which went to that very answer; and no redirect was followed.
    assert (first.status_code, listener.connections, answers) == (302, 1, [])


async def test_a_name_that_nobody_knows_is_a_connection_that_failed() -> None:
    async def resolver(_host: str, _port: int) -> list[str]:
        raise OSError

    async with httpx.AsyncClient(transport=GuardedTransport(Destinations(resolver=resolver))) as http:
        with pytest.raises(httpx.ConnectError, match="not known"):
            await http.get("https://lab.example.org/x")
