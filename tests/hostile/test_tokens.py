"""API2:2023, broken authentication: forged tokens (RFC 8725, RFC 9068), at the gateway and at every service.

What is wrong with each is spelled out in shared/tests/web/test_auth.py; here, that no door has another lock.
"""

import base64
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from clinic_shared.auth import TokenSigner, claims_of
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.testing import ISSUER
from clinic_shared.testing_examples import CONTRACTS, all_operations_of
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import ECKey

from .conftest import TargetOf

UNSET: Any = object()
ELSEWHERE = "http://127.0.0.1:1/keys"


def encoded(content: Mapping[str, Any] | bytes) -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _private(key: ECKey) -> ec.EllipticCurvePrivateKey:
    private = key.private_key
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return private


class Forger:
    """Signs anything, with identity's own key or another's, as no library would."""

    def __init__(self, signer: TokenSigner, now: datetime) -> None:
        everything = frozenset(scope for scopes in CONTRACTS.scopes_by_role().values() for scope in scopes)
        claims: dict[str, Any] = {"subject": uuid7(), "kind": "staff", "scopes": everything, "network": True}
        self.key = signer.key
        self.header = {"alg": "ES256", "typ": "at+jwt", "kid": signer.key_id}
        self.claims = {
            "iss": ISSUER,
            "aud": "clinic-api",
            **claims_of(Principal(**claims), issued_at=now),
        }
        self.now = int(now.timestamp())

    def sign(
        self, header: Mapping[str, Any], claims: Mapping[str, Any] | bytes, key: ECKey | None = None
    ) -> str:
        told = {name: value for name, value in header.items() if value is not UNSET}
        signing_input = f"{encoded(told)}.{encoded(claims)}"
        made = _private(key or self.key).sign(signing_input.encode(), ec.ECDSA(SHA256()))
        r, s = utils.decode_dss_signature(made)
        return f"{signing_input}.{encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def valid(self) -> str:
        return self.sign(self.header, self.claims)

    def _with(self, **claims: Any) -> str:
        changed = {name: value for name, value in {**self.claims, **claims}.items() if value is not UNSET}
        return self.sign(self.header, changed)

    def _unsigned(self, algorithm: str) -> str:
        return f"{encoded({**self.header, 'alg': algorithm})}.{encoded(self.claims)}."

    def _hmac(self, secret: bytes) -> str:
        signing_input = f"{encoded({**self.header, 'alg': 'HS256'})}.{encoded(self.claims)}"
        return f"{signing_input}.{encoded(hmac.digest(secret, signing_input.encode(), 'sha256'))}"

    def forgeries(self) -> dict[str, str]:
        """Return one token per kind of forgery."""
        stranger = TokenSigner.generate(issuer=ISSUER)
        public = self.key.public_key
        good, doubled = self.valid(), json.dumps(self.claims).replace('"sub"', '"sub":"x","sub"', 1)
        headers: dict[str, dict[str, Any]] = {
            "key id of a file": {"kid": "../../../dev/null"},
            "key id in SQL": {"kid": "' OR 1=1--"},
            "key id of 4 KB": {"kid": "k" * 4096},
            "no key id": {"kid": UNSET},
            "own key": {"jwk": stranger.public_jwks()["keys"][0]},
            "key elsewhere": {"jku": ELSEWHERE},
            "certificate elsewhere": {"x5u": ELSEWHERE},
            "critical extension": {"crit": ["x"], "x": 1},
            "unencoded": {"b64": False, "crit": ["b64"]},
            "compressed": {"zip": "DEF"},
            "refresh token": {"typ": "rt+jwt"},
            "any JWT": {"typ": "JWT"},
        }
        return {
            **{f"algorithm {name}": self._unsigned(name) for name in ("none", "None", "nOnE", "ES256")},
            "public key as a secret, PEM": self._hmac(
                public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            ),
            "public key as a secret, DER": self._hmac(
                public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            ),
            "empty secret": self._hmac(b""),
            **{name: self.sign({**self.header, **change}, self.claims) for name, change in headers.items()},
            "another's signature": self.sign(self.header, self.claims, stranger.key),
            "another's key": self.sign({**self.header, "kid": stranger.key_id}, self.claims, stranger.key),
            "expired": self._with(iat=self.now - 400, exp=self.now - 100),
            "for ever": self._with(exp=self.now + 10**9),
            "no expiry": self._with(exp=UNSET),
            "not yet": self._with(nbf=self.now + 60),
            "another issuer": self._with(iss=f"{ISSUER}/"),
            "another audience": self._with(aud="billing"),
            "several audiences": self._with(aud=["clinic-api", "billing"]),
            "two subjects": self.sign(self.header, doubled.encode()),
            "deep": self.sign(self.header, b'{"a":' * 5000 + b"1" + b"}" * 5000),
            "cut off": good[:-1],
            "stuffed": good + "=",
            "huge": good + "A" * 200_000,
        }


async def assert_refuses(http: httpx.AsyncClient, path: str, forger: Forger) -> None:
    accepted = []
    for name, token in forger.forgeries().items():
        answer = await http.get(path, headers={"Authorization": f"Bearer {token}"})
        if answer.status_code not in {401, 431} or token[:40] in answer.text:
            accepted.append(f"{name}: {answer.status_code}")
    assert not accepted, "\n".join(accepted)


@pytest.mark.parametrize("name", CONTRACTS.services)
async def test_no_service_takes_a_forged_token(name: str, target_of: TargetOf, signer: TokenSigner) -> None:
    service = (await target_of(name)).service
    forger = Forger(signer, service.clock.now())
    path = "/v1/ops/ledger"
    let_in = await service.http.get(path, headers={"Authorization": f"Bearer {forger.valid()}"})
    assert let_in.status_code == httpx.codes.OK
    await assert_refuses(service.http, path, forger)


@pytest.mark.parametrize("name", CONTRACTS.services)
async def test_what_stands_in_other_headers_makes_nobody_known(name: str, target_of: TargetOf) -> None:
    """RFC 9110, 7.6.1 and what proxies of other products send: identity comes with a token or not at all."""
    service = (await target_of(name)).service
    claimed = {
        "X-User-Id": str(uuid7()),
        "X-Forwarded-User": "administrator",
        "X-Roles": "administrator",
        "X-Original-URL": "/healthz",
        "X-HTTP-Method-Override": "GET",
        "Cookie": f"__Host-sid={uuid7()}; token=x",
        "Forwarded": "for=127.0.0.1;by=gateway",
    }
    opened = []
    for operation in all_operations_of(name):
        if operation.description.get("security") == []:
            continue
        answer = await service.http.request(operation.method, operation.url({}), headers=claimed)
        if answer.status_code != httpx.codes.UNAUTHORIZED:
            opened.append(f"{operation.name}: {answer.status_code}")
    assert not opened, "\n".join(opened)


@pytest.mark.parametrize("name", CONTRACTS.services)
async def test_no_service_answers_to_other_methods_or_another_origin(name: str, target_of: TargetOf) -> None:
    """API8:2023: no method that nobody declared, and no word to scripts of other sites."""
    service = (await target_of(name)).service
    for method in ("TRACE", "PROPFIND", "OPTIONS", "SEARCH"):
        answer = await service.http.request(
            method,
            "/v1/ops/ledger",
            headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
        )
        assert answer.status_code in {401, 404, 405}, method
        assert not [header for header in answer.headers if header.startswith("access-control-")]


async def test_the_gateway_takes_no_forged_token(gateway: httpx.AsyncClient, signer: TokenSigner) -> None:
    forger = Forger(signer, datetime.now(UTC))
    for path in ("/v1/patients", "/v1/ops/ledger", "/v1/stream"):
        await assert_refuses(gateway, path, forger)
