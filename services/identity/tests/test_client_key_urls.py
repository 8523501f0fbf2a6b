"""Keys that clients publish at a URL: read from the public internet only, and not too often."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from clinic_identity.client_keys import ASKED_AGAIN_SECONDS, FRESH_SECONDS, KEPT_SECONDS, ClientKeys
from clinic_identity.public_sites import NotPublicError, PublicSites, UnreadableError, check_url
from clinic_shared import strict_json
from clinic_shared.destinations import is_public
from joserfc.jwk import ECKey, OctKey

from .conftest import Installation, Network
from .test_client_assertions import CLIENT_ID, ask, claims, signed

KEY = ECKey.generate_key("P-384", {"kid": "one"})


@dataclass
class Site:
    """A site that answers what a test tells it, byte for byte."""

    url: str = ""
    port: int = 0
    connections: int = 0
    status: bytes = b"200 OK"
    headers: bytes = b""
    keys: list[dict[str, Any]] = field(default_factory=lambda: [dict(KEY.as_dict(private=False))])
    body: bytes | None = None

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            body = strict_json.dumps({"keys": self.keys}) if self.body is None else self.body
            writer.write(
                b"HTTP/1.1 %b\r\n%bConnection: close\r\nContent-Length: %d\r\n\r\n%b"
                % (self.status, self.headers, len(body), body)
            )
            await writer.drain()
        writer.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    made.url = f"http://127.0.0.1:{made.port}/keys"
    async with server:
        yield made


@pytest.mark.parametrize(
    "url",
    [
        "http://lab.example.org/keys",
        "https://lab.example.org:8443/keys",
        "https://lab.example.org:22/keys",
        "https://user:secret@lab.example.org/keys",  # pragma: allowlist secret
        "https://lab.example.org/keys#x",
        "https://lab.example.org\\@evil.example.org/",
        "https://127.0.0.1/keys",
        "https://127.1/keys",
        "https://2130706433/keys",
        "https://0x7f000001/keys",
        "https://0177.0.0.1/keys",
        "https://[::1]/keys",
        "https://localhost/keys",
        "https://metadata/keys",
        "https://①②⑦.⓪.⓪.①/keys",
        "https://lab.example.org:abc/keys",
        "https://-lab.example.org/keys",
        "file:///etc/passwd",
        "gopher://lab.example.org/",
        "",
    ],
)
def test_an_address_that_is_no_public_site_is_not_taken(url: str) -> None:
    with pytest.raises(NotPublicError):
        check_url(url)


@pytest.mark.parametrize("url", ["https://lab.example.org", "https://a.b-c.example.xn--p1ai:443/k?x=1"])
def test_the_address_of_a_site_is_taken(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "198.18.0.1",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "::7f00:1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "2001::1",
        "2001:db8::1",
        "fe80::1",
        "fc00::1",
        "ff02::1",
    ],
)
def test_an_address_inside_is_not_public_whatever_it_is_wrapped_into(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_an_address_outside_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["93.184.215.14", "10.0.0.1"], ["::ffff:127.0.0.1"], []], ids=str
)
async def test_a_name_that_leads_inside_is_not_connected_to(site: Site, addresses: list[str]) -> None:
    async def resolver(_host: str, _port: int) -> list[str]:
        return addresses

    with pytest.raises(NotPublicError):
        await PublicSites(resolver=resolver).read("https://lab.example.org/keys", max_bytes=1000)
    assert site.connections == 0


async def test_redirects_errors_and_large_answers_are_not_followed(site: Site) -> None:
    sites = PublicSites(loopback=True)
    assert b'"kid":"one"' in (await sites.read(site.url, max_bytes=10_000)).replace(b" ", b"")
    with pytest.raises(UnreadableError):
        await sites.read(site.url, max_bytes=10)
    site.status, site.headers = b"302 Found", f"Location: {site.url}\r\n".encode()
    before = site.connections
    with pytest.raises(UnreadableError):
        await sites.read(site.url, max_bytes=10_000)
    assert site.connections == before + 1
    site.status = b"500 Oh"
    with pytest.raises(UnreadableError):
        await sites.read(site.url, max_bytes=10_000)


async def test_keys_are_read_again_when_they_are_old_or_one_is_new_but_not_for_each_invented_one(
    site: Site,
) -> None:
    now = [1000.0]
    keys = ClientKeys(PublicSites(loopback=True), clock=lambda: now[0])
    for _ in range(3):
        await keys.refresh(site.url, "one")
    assert site.connections == 1
    now[0] += ASKED_AGAIN_SECONDS
    for _ in range(3):
        await keys.refresh(site.url, "invented")
    assert site.connections == 2
    now[0] += FRESH_SECONDS
    await keys.refresh(site.url, "one")
    assert site.connections == 3
    site.status = b"503 Away"
    now[0] += KEPT_SECONDS - 1
    await keys.refresh(site.url, "one")
    assert [key["kid"] for key in keys.known(site.url)["keys"]] == ["one"]
    now[0] += 1
    assert keys.known(site.url) == {"keys": []}


async def test_what_else_is_published_is_left_out(site: Site) -> None:
    secret = dict(OctKey.generate_key(256, {"kid": "secret"}).as_dict())
    other = dict(ECKey.generate_key("P-256", {"kid": "other"}).as_dict(private=False))
    site.keys = [secret, other, {"kid": 7}, *site.keys, *site.keys]
    keys = ClientKeys(PublicSites(loopback=True))
    await keys.refresh(site.url, "one")
    assert [key["kid"] for key in keys.known(site.url)["keys"]] == ["one"]
    for body in (b"", b"[]", b'{"keys": 7}', b"\xff"):
        site.body = body
        anew = ClientKeys(PublicSites(loopback=True))
        await anew.refresh(site.url, "one")
        assert anew.known(site.url) == {"keys": []}


@pytest.fixture
async def network(installation: Installation) -> AsyncIterator[Network]:
    async with installation.start(client_keys_from_loopback=True) as running:
        yield Network(running, running.principal("system-administrator"))


async def register(network: Network, url: str) -> None:
    made = await network.post("/v1/clients", {"kind": "lab", "name": "Test lab", "client_id": CLIENT_ID})
    path = f"/v1/clients/{made.json()['id']}/keys"
    registered = await network.put(path, {"jwks_url": url}, version=1)
    assert (registered.status_code, registered.json()["jwks_url"]) == (200, url), registered.text


async def test_a_client_signs_with_a_key_that_it_publishes(network: Network, site: Site) -> None:
    await register(network, site.url)
    for header in ({}, {"jku": site.url}):
        granted = await ask(network, signed(claims(network), KEY, **header))
        assert granted.status_code == 200, granted.text
    stranger = ECKey.generate_key("P-384", {"kid": "one"})
    for key, header in ((stranger, {}), (KEY, {"jku": site.url + "/other"})):
        refused = await ask(network, signed(claims(network), key, **header))
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
    assert site.connections == 1


async def test_a_client_whose_site_is_away_is_refused(network: Network) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        await register(network, f"http://127.0.0.1:{nobody.getsockname()[1]}/keys")
        assert (await ask(network, signed(claims(network), KEY))).status_code == 401


async def test_an_address_inside_is_not_registered(installation: Installation, site: Site) -> None:
    async with installation.start() as running:
        network = Network(running, running.principal("system-administrator"))
        made = await network.post("/v1/clients", {"kind": "lab", "name": "Test lab", "client_id": CLIENT_ID})
        path = f"/v1/clients/{made.json()['id']}/keys"
        refused = await network.put(path, {"jwks_url": site.url}, version=1)
        assert (refused.status_code, refused.json()["type"]) == (422, "/problems/jwks-url-refused")
        both = {"jwks_url": "https://lab.example.org/keys", "keys": [KEY.as_dict(private=False)]}
        assert (await network.put(path, both, version=1)).status_code == 422
