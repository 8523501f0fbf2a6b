"""HTTPS between gateway and services: what isn't vouched for is not talked to, and renewals need no restart."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from clinic_local.ports import free_port
from clinic_shared.health import Health
from clinic_shared.http_server import Listening, serve_http
from clinic_shared.testing import eventually
from clinic_shared.testing_certificates import write_certificate
from clinic_shared.tls import OwnCertificate, trusting
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

if TYPE_CHECKING:
    from .conftest import Bearer, StartClinic


PATIENTS = "/v1/patients/me"


class Identity:
    """The service behind the gateway: it has the keys that tokens are verified with."""

    def __init__(self, jwks: dict[str, Any]) -> None:
        pages = {
            "/.well-known/jwks.json": jwks,
            "/internal/revocations": {"revocations": []},
            "/v1/users/me": {"over": "https"},
            PATIENTS: {"over": "https"},
        }
        self.app = Starlette(routes=[Route(path, partial(self._page, page)) for path, page in pages.items()])
        self.schemes: list[str] = []

    async def _page(self, page: Any, request: Request) -> Response:
        self.schemes.append(request.url.scheme)
        return JSONResponse(page)


@asynccontextmanager
async def served(app: ASGIApp, certificate: OwnCertificate) -> AsyncIterator[int]:
    port, health, stop = free_port(), Health(), asyncio.Event()
    listening = Listening(
        host="127.0.0.1", port=port, tls=certificate.context, drain_seconds=0, grace_seconds=5
    )
    tasks = asyncio.gather(
        serve_http(app, listening, stop=stop, health=health), certificate.follow(health, stop)
    )
    try:
        await eventually(partial(_is_open, port))
        yield port
    finally:
        stop.set()
        await tasks


async def _is_open(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@pytest.fixture
def identity(jwks: dict[str, Any]) -> Identity:
    return Identity(jwks)


async def test_the_gateway_and_its_keys_come_over_https_from_whom_the_authority_vouches_for(
    start_clinic: StartClinic, identity: Identity, bearer: Bearer, tmp_path: Path
) -> None:
    certificate, authority = write_certificate(tmp_path)
    async with served(identity.app, OwnCertificate(certificate)) as port:
        trusted = {"upstreams": f"identity=https://127.0.0.1:{port}", "tls_authority_file": authority}
        async with start_clinic("patients", verifier=None, **trusted) as clinic:
            answer = await clinic.http.get("/v1/users/me", headers=bearer())
    assert (answer.status_code, answer.json()) == (200, {"over": "https"})
    assert set(identity.schemes) == {"https"}


async def test_a_service_for_which_nobody_vouches_is_not_talked_to(
    start_clinic: StartClinic, identity: Identity, bearer: Bearer, jwks: dict[str, Any], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    certificate, _ = write_certificate(tmp_path)
    _, stranger = write_certificate(other)
    async with served(identity.app, OwnCertificate(certificate)) as port:
        doubted = {"upstreams": f"identity=https://127.0.0.1:{port}", "tls_authority_file": stranger}
        async with start_clinic("patients", **doubted) as clinic:
            answer = await clinic.http.get("/v1/users/me", headers=bearer())
        async with start_clinic("patients", verifier=None, **doubted) as clinic:
            unverified = await clinic.http.get("/v1/users/me", headers=bearer())
    assert (answer.status_code, unverified.status_code) == (503, 503)
    assert identity.schemes == []


async def test_a_new_authority_counts_without_a_restart_and_the_old_one_no_more(
    start_clinic: StartClinic, identity: Identity, bearer: Bearer, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        write_certificate(folder)
    trusted = tmp_path / "trusted.pem"
    statuses = []
    async with (
        served(identity.app, OwnCertificate(old / "machine.pem")) as before,
        served(identity.app, OwnCertificate(new / "machine.pem")) as after,
    ):
        shutil.copy(old / "authority.pem", trusted)
        upstreams = f"identity=https://127.0.0.1:{before},patients=https://127.0.0.1:{after}"
        async with start_clinic(upstreams=upstreams, tls_authority_file=trusted) as clinic:

            async def ask() -> None:
                answers = [
                    await clinic.http.get(path, headers=bearer()) for path in ("/v1/users/me", PATIENTS)
                ]
                statuses.append([answer.status_code for answer in answers])

            await ask()
            (new / "authority.pem").replace(trusted)
            await ask()
            trusted.write_text("half of a renewal")
            await ask()
    assert statuses == [[200, 503], [503, 200], [503, 200]]


async def test_a_renewed_certificate_is_shown_without_a_restart_and_half_a_renewal_is_not(
    identity: Identity, tmp_path: Path
) -> None:
    file, _ = write_certificate(tmp_path)
    certificate = OwnCertificate(file)
    async with served(identity.app, certificate) as port:
        first = await shown_by(port)
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(OSError, match=r"PEM|SSL"):
            certificate.renew()
        assert await shown_by(port) == first
        write_certificate(tmp_path)

        async def is_renewed() -> bool:
            return await shown_by(port) != first

        await eventually(is_renewed)


async def shown_by(port: int) -> bytes:
    anybody = trusting(None)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=anybody)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return shown
