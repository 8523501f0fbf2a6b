"""OAuth clients that show a certificate (RFC 8705): who gets a token for one, and that the token is bound to it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from clinic_shared.auth import TokenSigner
from clinic_shared.client_certificates import HEADER, thumbprint, vouch_for
from clinic_shared.internal_tokens import KEYS_FILE
from clinic_shared.strict_json import dumps
from clinic_shared.testing import FixedClock
from clinic_shared.testing_certificates import Authority, ClientCertificate, self_signed
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from joserfc.jwk import ECKey

from .conftest import Installation, Network
from .test_client_assertions import ask as ask_signed
from .test_client_assertions import claims, signed
from .test_login import claims_in

GATEWAY = TokenSigner.generate(issuer="urn:clinic:gateway")
SUBJECT = "CN=lab.example.org,O=Fictitious laboratory"
MTLS_URL = "https://mtls.clinic.test"


@dataclass
class Clinic:
    network: Network
    authority: Authority
    authorities_file: Path
    lab: dict[str, Any] = field(default_factory=dict)

    async def register(self, **rule: Any) -> httpx.Response:
        return await self.network.put(f"/v1/clients/{self.lab['id']}/certificate", rule, version=None)

    def header(self, shown: ClientCertificate | None, **changes: Any) -> dict[str, str]:
        """What the gateway sends along, or somebody in its place."""
        if shown is None:
            return {}
        said: dict[str, Any] = {"key": GATEWAY.key, "service": "identity", "now": self.seconds} | changes
        return {HEADER: vouch_for(shown.der, **said)}

    @property
    def seconds(self) -> int:
        return int(self.network.identity.clock.now().timestamp())

    async def ask(self, shown: ClientCertificate | None = None, path: str = "token", **form: str) -> Any:
        grant = {"client_id": "lab-test", "grant_type": "client_credentials"} | form
        return await self.network.identity.http.post(
            f"/oauth2/{path}", data=grant, headers=self.header(shown)
        )


@pytest.fixture
async def clinic(
    installation: Installation, secrets_dir: Path, signer: TokenSigner, clock: FixedClock, tmp_path: Path
) -> AsyncIterator[Clinic]:
    (tmp_path / KEYS_FILE).write_bytes(dumps(GATEWAY.public_jwks()))
    (tmp_path / "signing-key.pem").write_bytes(signer.key.as_pem(private=True))
    authorities = tmp_path / "authorities.pem"
    authority = Authority(now=clock.now())
    authorities.write_text(authority.pem)
    settings = {
        "secrets_dir": tmp_path,
        "client_authorities_file": authorities,
        "mtls_url": MTLS_URL,
    }
    async with installation.start(**settings) as running:
        network = Network(running, running.principal("system-administrator"))
        lab = await network.post(
            "/v1/clients", {"kind": "lab", "name": "Test laboratory", "client_id": "lab-test"}
        )
        assert lab.status_code == 201, lab.text
        yield Clinic(network, authority, authorities, lab.json())


def refused(answer: httpx.Response) -> bool:
    return (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_a_certificate_with_the_registered_name_gets_a_token_that_is_bound_to_it(
    clinic: Clinic,
) -> None:
    registered = await clinic.register(subject_dn=SUBJECT)
    assert registered.status_code == 200, registered.text
    told = registered.json()["certificate"]
    assert (told["token_endpoint_auth_method"], told["name"]) == ("tls_client_auth", SUBJECT)
    first, renewed = clinic.authority.sign(SUBJECT), clinic.authority.sign(SUBJECT)
    for shown in (first, renewed):
        granted = await clinic.ask(shown)
        assert granted.status_code == 200, granted.text
        token = granted.json()["access_token"]
        assert claims_in(token)["cnf"] == {"x5t#S256": thumbprint(shown.der)}
        introspected = await clinic.ask(first, "introspect", token=token)
        assert introspected.json()["cnf"] == {"x5t#S256": thumbprint(shown.der)}


async def test_nothing_but_that_certificate_gets_a_token(clinic: Clinic, tmp_path: Path) -> None:
    await clinic.register(subject_dn=SUBJECT)
    now = clinic.authority.now
    for_servers = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    namesake = Authority(now=now)
    shown = {
        "none": None,
        "another name": clinic.authority.sign("CN=other.example.org,O=Fictitious laboratory"),
        "one more part of a name": clinic.authority.sign(f"OU=more,{SUBJECT}"),
        "another authority of the same name": namesake.sign(SUBJECT),
        "signed by itself": self_signed(SUBJECT, now=now),
        "expired": clinic.authority.sign(SUBJECT, until=now - timedelta(seconds=1)),
        "for servers": clinic.authority.sign(SUBJECT, for_servers),
        "an authority's own": clinic.authority.own,
    }
    answers = {name: await clinic.ask(one) for name, one in shown.items()}
    assert {name for name, answer in answers.items() if not refused(answer)} == set()
    assert refused(await clinic.ask(client_secret=clinic.lab["client_secret"]))
    assert refused(await clinic.ask(shown["none"], "introspect", token="x"))
    assert len(await clinic.network.audit(reason="invalid-client")) == len(shown) + 2


async def test_a_signature_does_not_stand_in_for_the_certificate(clinic: Clinic) -> None:
    key = ECKey.generate_key("P-384", {"kid": "ec"})
    keys = {"keys": [key.as_dict(private=False)]}
    await clinic.network.put(f"/v1/clients/{clinic.lab['id']}/keys", keys, version=None)
    payload = claims(clinic.network, iss="lab-test", sub="lab-test")
    assert (await ask_signed(clinic.network, signed(payload, key))).status_code == 200
    await clinic.register(subject_dn=SUBJECT)
    payload = claims(clinic.network, iss="lab-test", sub="lab-test")
    assert refused(await ask_signed(clinic.network, signed(payload, key)))


async def test_only_the_gateway_can_say_what_was_shown(clinic: Clinic) -> None:
    await clinic.register(subject_dn=SUBJECT)
    shown = clinic.authority.sign(SUBJECT)
    stranger = TokenSigner.generate(issuer="urn:clinic:gateway").key
    header, payload, signature = clinic.header(shown)[HEADER].split(".")
    _, other, _ = clinic.header(clinic.authority.own)[HEADER].split(".")
    said = {
        "a stranger": clinic.header(shown, key=stranger),
        "for another service": clinic.header(shown, service="patients"),
        "a while ago": clinic.header(shown, now=clinic.seconds - 61),
        "too early": clinic.header(shown, now=clinic.seconds + 11),
        "another payload": {HEADER: f"{header}.{other}.{signature}"},
        "no signature": {HEADER: f"{header}.{payload}."},
        "an access token": {HEADER: GATEWAY.sign({"aud": "clinic:identity", "iat": clinic.seconds})},
        "the bare certificate": {"Client-Cert": shown.pem.replace("\n", "")},
        "nothing that is signed": {HEADER: "x"},
    }
    form = {"client_id": "lab-test", "grant_type": "client_credentials"}
    http = clinic.network.identity.http
    answers = {who: await http.post("/oauth2/token", data=form, headers=told) for who, told in said.items()}
    assert {who for who, answer in answers.items() if not refused(answer)} == set()
    assert (await clinic.ask(shown)).status_code == 200


@pytest.mark.parametrize(
    ("kind", "name", "carried"),
    [
        ("san_dns", "lab.example.org", x509.DNSName("lab.example.org")),
        ("san_uri", "urn:example:lab", x509.UniformResourceIdentifier("urn:example:lab")),
        ("san_email", "lab@example.org", x509.RFC822Name("lab@example.org")),
    ],
)
async def test_an_alternative_name_counts_where_it_was_registered(
    clinic: Clinic, kind: str, name: str, carried: x509.GeneralName
) -> None:
    assert (await clinic.register(**{kind: name})).status_code == 200
    own = clinic.authority.sign(SUBJECT, x509.SubjectAlternativeName([carried]))
    other = x509.SubjectAlternativeName([x509.DNSName("other.example.org")])
    assert (await clinic.ask(own)).status_code == 200
    assert refused(await clinic.ask(clinic.authority.sign(SUBJECT, other)))
    assert refused(await clinic.ask(clinic.authority.sign(SUBJECT)))


async def test_a_registered_certificate_needs_nobody_to_vouch_for_it(clinic: Clinic) -> None:
    now = clinic.authority.now
    old, new, other = (self_signed(SUBJECT, now=now, until=now + timedelta(hours=n)) for n in (1, 9, 9))
    registered = await clinic.register(certificates=[old.pem, new.pem])
    assert registered.json()["certificate"]["token_endpoint_auth_method"] == "self_signed_tls_client_auth"
    assert [(await clinic.ask(one)).status_code for one in (old, new, other)] == [200, 200, 401]
    clinic.network.identity.clock.advance(hours=2)
    assert [(await clinic.ask(one)).status_code for one in (old, new)] == [401, 200]


async def test_what_an_authority_revokes_counts_as_soon_as_the_operator_says_so(clinic: Clinic) -> None:
    await clinic.register(subject_dn=SUBJECT)
    lost, kept = clinic.authority.sign(SUBJECT), clinic.authority.sign(SUBJECT)
    assert (await clinic.ask(lost)).status_code == 200
    forged = Authority(now=clinic.authority.now).revoke(kept)
    clinic.authorities_file.write_text(clinic.authority.pem + forged + clinic.authority.revoke(lost))
    assert [(await clinic.ask(one)).status_code for one in (lost, kept)] == [401, 200]
    clinic.authorities_file.write_text("nonsense")
    assert [(await clinic.ask(one)).status_code for one in (lost, kept)] == [401, 200]


async def test_a_bound_token_is_of_no_use_with_a_service_itself(clinic: Clinic) -> None:
    await clinic.register(subject_dn=SUBJECT)
    token = (await clinic.ask(clinic.authority.sign(SUBJECT))).json()["access_token"]
    answer = await clinic.network.with_token("GET", "/v1/centres", token)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')


async def test_with_another_certificate_registered_the_tokens_before_are_void(clinic: Clinic) -> None:
    await clinic.register(subject_dn=SUBJECT)
    shown, other = clinic.authority.sign(SUBJECT), self_signed(SUBJECT, now=clinic.authority.now)
    token = (await clinic.ask(shown)).json()["access_token"]
    clinic.network.identity.clock.advance(seconds=5)
    await clinic.register(certificates=[other.pem], tls_client_certificate_bound_access_tokens=False)
    clinic.network.identity.clock.advance(seconds=5)
    assert (await clinic.ask(other, "introspect", token=token)).json() == {"active": False}
    assert "cnf" not in claims_in((await clinic.ask(other)).json()["access_token"])
    await clinic.network.identity.http.request(
        "DELETE",
        f"/v1/clients/{clinic.lab['id']}/certificate",
        headers=clinic.network.identity.headers(clinic.network.admin),
    )
    assert refused(await clinic.ask(other))
    assert (await clinic.ask(client_secret=clinic.lab["client_secret"])).status_code == 200


async def test_a_rule_that_names_nothing_is_not_registered(clinic: Clinic) -> None:
    wrong: list[dict[str, Any]] = [
        {},
        {"subject_dn": "no name"},
        {"subject_dn": SUBJECT, "san_dns": "lab.example.org"},
        {"certificates": []},
        {"certificates": ["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]},
    ]
    assert {(await clinic.register(**rule)).status_code for rule in wrong} == {422}
    app = {
        "kind": "app",
        "name": "App",
        "redirect_uris": ["https://app.example.org/cb"],
        "user_scopes": ["appointments.read"],
    }
    made = (await clinic.network.post("/v1/clients", app)).json()
    answer = await clinic.network.put(
        f"/v1/clients/{made['id']}/certificate", {"subject_dn": SUBJECT}, version=None
    )
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/certificate-not-for-people")


async def test_clients_read_where_to_show_their_certificate(clinic: Clinic) -> None:
    for path in ("openid-configuration", "smart-configuration"):
        told = (await clinic.network.identity.http.get(f"/.well-known/{path}")).json()
        methods = set(told["token_endpoint_auth_methods_supported"])
        assert {"tls_client_auth", "self_signed_tls_client_auth"} <= methods
        assert told["tls_client_certificate_bound_access_tokens"] is True
        assert told["mtls_endpoint_aliases"]["token_endpoint"] == f"{MTLS_URL}/oauth2/token"


async def test_where_nobody_asks_for_certificates_none_are_spoken_of(network: Network) -> None:
    told = (await network.identity.http.get("/.well-known/smart-configuration")).json()
    assert "tls_client_certificate_bound_access_tokens" not in told
    assert not any("tls" in method for method in told["token_endpoint_auth_methods_supported"])
