"""Tokens that are bound to a certificate (RFC 8705), over real TLS: they count with it, and with nothing else."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from clinic_gateway.app import certificate_of, create_app
from clinic_gateway.client_certificates import read_header
from clinic_gateway.errors import MalformedRequestError
from clinic_gateway.settings import GatewaySettings
from clinic_gateway.token_exchange import KEY_FILE, new_key, public_keys
from clinic_gateway.tokens import Revocations
from clinic_identity.app import service as identity_service
from clinic_shared import strict_json
from clinic_shared.app import create_app as create_service
from clinic_shared.auth import StaticKeys, TokenSigner, TokenVerifier, claims_in
from clinic_shared.client_certificates import HEADER, read_vouched, thumbprint
from clinic_shared.internal_tokens import KEYS_FILE
from clinic_shared.service import Service as ServiceDefinition
from clinic_shared.testing import ISSUER as IDENTITY
from clinic_shared.testing import FixedClock, Servers, ServiceHarness, harness
from clinic_shared.testing_certificates import Authority, ClientCertificate, self_signed, write_certificate
from clinic_shared.tls import trusting

from .conftest import ISSUER, SIGNER, UNLIMITED, Service, serving, token_of
from .test_tls import served

NOW = datetime.now(UTC)
LABORATORIES = Authority(now=NOW)
OWN, OTHER = (LABORATORIES.sign(f"CN={name}.example.org") for name in ("own", "other"))
PINNED = self_signed("CN=pinned.example.org", now=NOW)
FORM = {"grant_type": "client_credentials", "client_id": "lab-test"}


def as_rfc_9440(shown: ClientCertificate) -> str:
    return f":{base64.b64encode(shown.der).decode()}:"


@dataclass
class Clinic:
    url: str
    folder: Path
    lab: Service
    identity: Service
    trusted: Path

    async def ask(
        self, method: str, path: str, shown: ClientCertificate | None = None, **request: Any
    ) -> httpx.Response:
        context = trusting(self.trusted)
        if shown is not None:
            context.load_cert_chain(shown.write(self.folder / "shown.pem"))
        async with httpx.AsyncClient(base_url=self.url, verify=context, trust_env=False, timeout=30) as http:
            return await http.request(method, path, **request)

    async def results(
        self, token: str, shown: ClientCertificate | None = None, *, told: str | None = None
    ) -> httpx.Response:
        """Use a token; `told` is what a proxy says, or somebody in its place."""
        headers = {"authorization": f"Bearer {token}"} | ({} if told is None else {"client-cert": told})
        return await self.ask("GET", "/v1/lab/results", shown, headers=headers)


@asynccontextmanager
async def running(
    folder: Path, *, verifier: TokenVerifier | None = None, **settings: Any
) -> AsyncIterator[Clinic]:
    own, trusted = write_certificate(folder)
    authorities = folder / "authorities.pem"
    authorities.write_text(LABORATORIES.pem + PINNED.pem)
    if not (folder / KEY_FILE).exists():
        (folder / KEY_FILE).write_bytes(new_key())
    async with AsyncExitStack() as stack:
        services = {name: Service(name) for name in ("identity", "lab-integration")}
        urls = {name: await stack.enter_async_context(serving(one)) for name, one in services.items()}
        configured = GatewaySettings.model_validate(
            UNLIMITED
            | {
                "environment": "test",
                "token_issuer": ISSUER,
                "secrets_dir": folder,
                "upstreams": ",".join(f"{name}={url}" for name, url in urls.items()),
                "contracts_dir": "/nonexistent",
                "tls_certificate_file": own,
                "client_authorities_file": authorities,
            }
            | settings
        )
        known = verifier or TokenVerifier.static(SIGNER.public_jwks(), issuer=ISSUER)
        gateway = create_app(configured, verifier=known, revocations=Revocations())
        certificate = certificate_of(configured)
        assert certificate is not None
        port = await stack.enter_async_context(served(gateway, certificate))
        yield Clinic(
            f"https://127.0.0.1:{port}", folder, services["lab-integration"], services["identity"], trusted
        )


@pytest.fixture
async def clinic(tmp_path: Path) -> AsyncIterator[Clinic]:
    async with running(tmp_path) as made:
        yield made


def bound_to(shown: ClientCertificate) -> str:
    return token_of(kind="client", certificate=thumbprint(shown.der))


async def test_a_bound_token_counts_with_its_certificate_and_with_nothing_else(clinic: Clinic) -> None:
    token = bound_to(OWN)
    assert (await clinic.results(token, OWN)).status_code == 200
    seen = clinic.lab.seen.pop()
    internal = (seen.header("authorization") or "").removeprefix("Bearer ")
    assert "cnf" not in claims_in(internal)
    refused = [
        await clinic.results(token),
        await clinic.results(token, OTHER),
        await clinic.results(token, told=as_rfc_9440(OWN)),
        await clinic.results(token, OTHER, told=as_rfc_9440(OWN)),
        await clinic.results(bound_to(OTHER), OWN),
    ]
    assert [answer.status_code for answer in refused] == [401] * len(refused)
    assert {answer.headers["www-authenticate"] for answer in refused} == {'Bearer error="invalid_token"'}
    assert {answer.json()["type"].rsplit("/", 1)[-1] for answer in refused} == {"wrong-client-certificate"}
    assert clinic.lab.seen == []


async def test_who_shows_no_certificate_is_served_as_before(clinic: Clinic) -> None:
    assert (await clinic.results(token_of(kind="client"))).status_code == 200
    assert (await clinic.results(token_of(kind="client"), OTHER)).status_code == 200
    assert (await clinic.ask("GET", "/healthz")).status_code == 200


async def test_a_certificate_that_nobody_vouches_for_does_not_get_in(clinic: Clinic) -> None:
    strangers = (
        Authority(now=NOW).sign("CN=own.example.org"),
        self_signed("CN=own.example.org", now=NOW),
        LABORATORIES.sign("CN=own.example.org", until=NOW - timedelta(hours=1)),
    )
    for stranger in strangers:
        with pytest.raises((httpx.TransportError, ssl.SSLError)):
            await clinic.results(bound_to(stranger), stranger)
    assert (await clinic.results(bound_to(PINNED), PINNED)).status_code == 200


async def test_identity_is_told_what_was_shown_by_the_gateway_alone(clinic: Clinic) -> None:
    keys = StaticKeys(strict_json.loads(public_keys((clinic.folder / KEY_FILE).read_bytes()).encode()))
    forged = {HEADER: "forged", "client-cert": as_rfc_9440(OWN)}
    await clinic.ask("POST", "/oauth2/token", OWN, data=FORM, headers=forged)
    await clinic.ask("POST", "/oauth2/token", data=FORM, headers=forged)
    told, untold = clinic.identity.seen
    said = told.header(HEADER.lower())
    assert said is not None
    assert await read_vouched(said, keys, service="identity", now=claims_in(said)["iat"]) == OWN.der
    assert untold.header(HEADER.lower()) is None
    assert (told.header("client-cert"), untold.header("client-cert")) == (None, None)


async def test_a_proxy_of_the_operators_hands_over_what_was_shown_to_it(tmp_path: Path) -> None:
    token = bound_to(OWN)
    async with running(tmp_path, certificate_proxies="192.0.2.0/24, 127.0.0.1/32") as clinic:
        for written in (as_rfc_9440(OWN), quote(OWN.pem)):
            assert (await clinic.results(token, told=written)).status_code == 200
        # What the proxy shows of its own is nobody else's.
        assert (await clinic.results(token, OWN)).status_code == 401
        assert (await clinic.results(token, told=as_rfc_9440(OTHER))).status_code == 401
        assert (await clinic.results(token, told="x")).status_code == 400


@pytest.mark.parametrize("text", ["", "::", ":x:", "x", ":%%:", quote("-----BEGIN CERTIFICATE-----"), "\xff"])
def test_a_header_that_holds_no_certificate_is_malformed(text: str) -> None:
    with pytest.raises(MalformedRequestError):
        read_header(text)


def test_proxies_are_networks() -> None:
    with pytest.raises(ValueError, match="certificate_proxies"):
        GatewaySettings.model_validate({"certificate_proxies": "proxy.example.org"})


class RealClock(FixedClock):
    """What the gateway has said counts for a minute, by the clock of both."""

    def now(self) -> datetime:
        return datetime.now(UTC)


@pytest.fixture
async def identity(
    servers: Servers,
    database_of: Callable[[ServiceDefinition], str],
    signer: TokenSigner,
    tmp_path: Path,
) -> AsyncIterator[ServiceHarness]:
    """The real one, which knows the gateway and the laboratories' authority."""
    (tmp_path / KEY_FILE).write_bytes(new_key())
    (tmp_path / KEYS_FILE).write_text(public_keys((tmp_path / KEY_FILE).read_bytes()))
    (tmp_path / "signing-key.pem").write_bytes(signer.key.as_pem(private=True))
    (tmp_path / "known.pem").write_text(LABORATORIES.pem)
    async with harness(
        identity_service,
        database_url=database_of(identity_service),
        amqp_url=servers.amqp_url,
        signer=signer,
        clock=RealClock(),
        secrets_dir=tmp_path,
        client_authorities_file=tmp_path / "known.pem",
    ) as made:
        yield made


async def test_a_stolen_token_is_of_no_use_without_the_certificate_it_was_issued_for(
    identity: ServiceHarness, signer: TokenSigner, tmp_path: Path
) -> None:
    admin = identity.headers(identity.principal("system-administrator"))
    app = {
        "kind": "app",
        "name": "App",
        "client_id": "lab-test",
        "scopes": ["organisation.read"],
        "network": True,
    }
    made = await identity.http.post("/v1/clients", json=app, headers=admin)
    assert made.status_code == 201, made.text
    path = f"/v1/clients/{made.json()['id']}/certificate"
    named = await identity.http.put(path, json={"subject_dn": "CN=own.example.org"}, headers=admin)
    assert named.status_code == 200, named.text
    verifier = TokenVerifier.static(signer.public_jwks(), issuer=IDENTITY)
    async with (
        serving(create_service(identity_service, identity.runtime)) as url,
        running(tmp_path, verifier=verifier, upstreams=f"identity={url}") as clinic,
    ):
        for shown in (None, OTHER):
            refused = await clinic.ask("POST", "/oauth2/token", shown, data=FORM)
            assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
        granted = await clinic.ask("POST", "/oauth2/token", OWN, data=FORM)
        assert granted.status_code == 200, granted.text
        stolen = {"authorization": f"Bearer {granted.json()['access_token']}"}
        used = [await clinic.ask("GET", "/v1/centres", shown, headers=stolen) for shown in (OWN, OTHER, None)]
        past = await identity.http.get("/v1/centres", headers=stolen)
    assert [answer.status_code for answer in (*used, past)] == [200, 401, 401, 401]
