"""Clients that sign: SMART Backend Services' rules, and what an attacker sends instead."""

import base64
import hmac
import warnings
from typing import Any

import httpx
import pytest
from clinic_shared import strict_json
from clinic_shared.ids import uuid7
from clinic_shared.testing import ISSUER
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

from .conftest import Network

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
EC = ECKey.generate_key("P-384", {"kid": "ec"})
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
ENDPOINT = f"{ISSUER}/oauth2/token"
CLIENT_ID = "lab-signing"


def short_rsa() -> dict[str, Any]:
    """Return a key that the library warns of by itself."""
    with warnings.catch_warnings(action="ignore"):
        return dict(RSAKey.generate_key(1024, {"kid": "1"}).as_dict(private=False))


@pytest.fixture
async def lab(network: Network) -> dict[str, Any]:
    body = {"kind": "lab", "name": "Signing laboratory", "client_id": CLIENT_ID}
    made = await network.post("/v1/clients", body)
    assert made.status_code == 201, made.text
    keys = {"keys": [EC.as_dict(private=False), RSA.as_dict(private=False)]}
    registered = await network.put(f"/v1/clients/{made.json()['id']}/keys", keys, version=1)
    assert registered.status_code == 200, registered.text
    return dict(made.json())


def claims(network: Network, **changes: Any) -> dict[str, Any]:
    now = int(network.identity.clock.now().timestamp())
    made = {"iss": CLIENT_ID, "sub": CLIENT_ID, "aud": ENDPOINT, "iat": now, "exp": now + 300}
    return {**made, "jti": str(uuid7()), **changes}


def signed(payload: dict[str, Any], key: Any = EC, alg: str = "ES384", **header: Any) -> str:
    told = {"alg": alg, "typ": "JWT", "kid": key.kid, **header}
    return jws.serialize_compact(told, strict_json.dumps(payload), key, algorithms=[alg])


def signed_with_secret(payload: dict[str, Any], secret: bytes) -> str:
    """What the library itself refuses to make."""

    def encoded(content: bytes) -> str:
        return base64.urlsafe_b64encode(content).rstrip(b"=").decode()

    header = strict_json.dumps({"alg": "HS256", "typ": "JWT", "kid": "ec"})
    signing = ".".join(encoded(part) for part in (header, strict_json.dumps(payload)))
    return f"{signing}.{encoded(hmac.digest(secret, signing.encode(), 'sha256'))}"


async def ask(network: Network, assertion: str, **changes: str) -> httpx.Response:
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": assertion,
        **changes,
    }
    return await network.identity.http.post("/oauth2/token", data=form)


@pytest.mark.parametrize(("key", "alg"), [(EC, "ES384"), (RSA, "RS384")], ids=["ES384", "RS384"])
async def test_a_client_that_signs_gets_a_token(
    network: Network, lab: dict[str, Any], key: Any, alg: str
) -> None:
    granted = await ask(network, signed(claims(network), key, alg))
    assert granted.status_code == 200, granted.text
    principal = await network.identity.runtime.verifier.verify(granted.json()["access_token"])
    assert str(principal.subject) == lab["id"]
    assert principal.scopes == {"lab-messages.send"}
    assert granted.json()["expires_in"] == 300


async def test_an_assertion_counts_once(network: Network, lab: dict[str, Any]) -> None:
    assertion = signed(claims(network))
    assert (await ask(network, assertion)).status_code == 200
    again = await ask(network, assertion)
    assert (again.status_code, again.json()["error"]) == (401, "invalid_client")
    same_id = signed(claims(network, jti="the same"))
    assert (await ask(network, same_id)).status_code == 200
    assert (await ask(network, signed(claims(network, jti="the same"), RSA, "RS384"))).status_code == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": f"{ISSUER}/oauth2/token/"},
        {"aud": [ENDPOINT]},
        {"aud": ISSUER},
        {"iss": "lab-other"},
        {"sub": "lab-other"},
        {"exp": 1},
        {"exp": 2**40},
        {"exp": "soon"},
        {"nbf": 2**40},
        {"jti": ""},
        {"jti": None},
    ],
    ids=str,
)
async def test_an_assertion_that_is_off_in_any_way_is_refused(
    network: Network, lab: dict[str, Any], changes: dict[str, Any]
) -> None:
    answer = await ask(network, signed(claims(network, **changes)))
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_an_assertion_that_lasts_longer_than_five_minutes_is_refused(
    network: Network, lab: dict[str, Any]
) -> None:
    now = int(network.identity.clock.now().timestamp())
    assert (await ask(network, signed(claims(network, exp=now + 311)))).status_code == 401
    assert (await ask(network, signed(claims(network, exp=now + 309)))).status_code == 200


async def test_no_key_but_a_registered_one_and_no_header_that_brings_its_own_counts(
    network: Network, lab: dict[str, Any]
) -> None:
    own = ECKey.generate_key("P-384", {"kid": "ec"})
    payload = claims(network)
    head, body, _ = signed(payload).split(".")
    forged = {
        "another key of the same name": signed(payload, own),
        "a key in the header": signed(payload, own, jwk=own.as_dict(private=False)),
        "a key by URL": signed(payload, jku="https://evil.example/jwks.json"),
        "a certificate by URL": signed(payload, x5u="https://evil.example/certificate"),
        "another type": signed(payload, typ="at+jwt"),
        "the public key as a secret": signed_with_secret(payload, EC.as_pem(private=False)),
        "the other key's algorithm": signed(payload, RSAKey.generate_key(2048, {"kid": "ec"}), "RS384"),
        "a weaker algorithm": signed(payload, RSA, "RS256"),
        "no signature": f"{head}.{body}.",
        "two dots": "..",
        "nothing": "x",
        "too much": "x" * 9000,
    }
    answers = {name: await ask(network, assertion) for name, assertion in forged.items()}
    assert {name for name, answer in answers.items() if answer.status_code == 200} == set()
    assert all(answer.json()["error"] == "invalid_client" for answer in answers.values())


async def test_requests_are_refused_as_the_standard_says(network: Network, lab: dict[str, Any]) -> None:
    assertion = signed(claims(network))
    wrong_type = await ask(network, assertion, client_assertion_type="urn:example:other")
    assert (wrong_type.status_code, wrong_type.json()["error"]) == (400, "invalid_request")
    wrong_grant = await ask(network, assertion, grant_type="password")
    assert (wrong_grant.status_code, wrong_grant.json()["error"]) == (400, "unsupported_grant_type")
    two_ways = await ask(network, assertion, client_id=CLIENT_ID, client_secret=lab["client_secret"])
    assert (two_ways.status_code, two_ways.json()["error"]) == (400, "invalid_request")
    wide = await ask(network, assertion, scope="staff.manage")
    assert (wide.status_code, wide.json()["error"]) == (400, "invalid_scope")


async def test_a_deactivated_client_signs_in_vain(network: Network, lab: dict[str, Any]) -> None:
    await network.post(f"/v1/clients/{lab['id']}/deactivate")
    assert (await ask(network, signed(claims(network)))).status_code == 401


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [{"kty": "oct", "k": "c2VjcmV0", "kid": "1"}],
        [EC.as_dict(private=True)],
        [ECKey.generate_key("P-256", {"kid": "1"}).as_dict(private=False)],
        [short_rsa()],
        [EC.as_dict(private=False)] * 2,
        [{"kty": "EC", "crv": "P-384", "kid": "1", "x": "AA", "y": "AA"}],
        [{"kty": "RSA", "kid": "1"}],
        [{**EC.as_dict(private=False), "alg": "ES256"}],
        [{**EC.as_dict(private=False), "use": "enc"}],
    ],
    ids=["none", "secret", "private", "P-256", "short", "twice", "off the curve", "half", "alg", "use"],
)
async def test_keys_that_must_not_be_used_are_not_registered(
    network: Network, lab: dict[str, Any], keys: list[Any]
) -> None:
    answer = await network.put(f"/v1/clients/{lab['id']}/keys", {"keys": keys}, version=2)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/client-keys-invalid")
