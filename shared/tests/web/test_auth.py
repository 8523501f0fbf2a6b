"""Tokens: every trap that a JOSE library lets pass is a refusal here."""

import asyncio
import base64
import hmac
import json
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from clinic_shared import auth, jwks
from clinic_shared.auth import RemoteKeys, StaticKeys, TokenSigner, TokenVerifier, claims_of
from clinic_shared.errors import TemporarilyUnavailableError, UnauthenticatedError
from clinic_shared.principal import Principal
from clinic_shared.settings import ServiceSettings
from clinic_shared.testing import FixedClock
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, RSAKey

ISSUER = "https://clinic.test"
CLOCK = FixedClock()
NOW = int(CLOCK.now().timestamp())
SIGNER = TokenSigner.generate(issuer=ISSUER)
STRANGER = TokenSigner.generate(issuer=ISSUER)
PRINCIPAL = Principal(
    subject=uuid4(),
    kind="patient",
    roles=frozenset({"patient"}),
    scopes=frozenset({"appointments.book", "patients.read"}),
    network=False,
    centre_ids=frozenset({uuid4(), uuid4()}),
    department_ids=frozenset({uuid4()}),
    patient_id=uuid4(),
    patient_records=frozenset({uuid4(), uuid4()}),
    session_id=uuid4(),
    token_id=str(uuid4()),
)
CLAIMS = {"iss": ISSUER, "aud": "clinic-api", **claims_of(PRINCIPAL, issued_at=CLOCK.now())}
HEADER = {"alg": "ES256", "typ": "at+jwt", "kid": SIGNER.key_id}
UNSET = object()


def verifier(clock=CLOCK, **settings):
    return TokenVerifier.static(SIGNER.public_jwks(), issuer=ISSUER, clock=clock, **settings)


def encoded(content):
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def token(header=HEADER, claims=CLAIMS, *, key=SIGNER.key):
    """Sign anything at all, as no library would."""
    signing_input = f"{encoded(header)}.{encoded(claims)}"
    r, s = utils.decode_dss_signature(key.private_key.sign(signing_input.encode(), ec.ECDSA(SHA256())))
    return f"{signing_input}.{encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def claims(**changes):
    return {name: value for name, value in {**CLAIMS, **changes}.items() if value is not UNSET}


async def assert_refused(candidate, checked_by=None):
    with pytest.raises(UnauthenticatedError) as caught:
        await (checked_by or verifier()).verify(candidate)
    assert caught.value.extensions == {}


async def test_a_token_gives_back_the_principal_it_was_made_of():
    assert await verifier().verify(SIGNER.sign(claims_of(PRINCIPAL, issued_at=CLOCK.now()))) == PRINCIPAL
    assert await verifier().verify(token()) == PRINCIPAL


BAD_HEADERS = {
    "none": {**HEADER, "alg": "none"},
    "None": {**HEADER, "alg": "None"},
    "nOnE": {**HEADER, "alg": "nOnE"},
    "HS256": {**HEADER, "alg": "HS256"},
    "another elliptic curve": {**HEADER, "alg": "ES384"},
    "a list of algorithms": {**HEADER, "alg": ["ES256"]},
    "no algorithm": {"typ": "at+jwt", "kid": SIGNER.key_id},
    "a refresh token": {**HEADER, "typ": "rt+jwt"},
    "a plain JWT": {**HEADER, "typ": "JWT"},
    "an upper-case type": {**HEADER, "typ": "AT+JWT"},
    "no type": {"alg": "ES256", "kid": SIGNER.key_id},
    "no key id": {"alg": "ES256", "typ": "at+jwt"},
    "key id of another type": {**HEADER, "kid": 7},
    "a path": {**HEADER, "kid": "../../dev/null"},
    "SQL": {**HEADER, "kid": "' OR 1=1--"},
    "NUL": {**HEADER, "kid": "\0"},
    "a long key id": {**HEADER, "kid": "k" * 7000},
    "own key": {**HEADER, "jwk": SIGNER.public_jwks()["keys"][0]},
    "key elsewhere": {**HEADER, "jku": "http://127.0.0.1:1/jwks.json"},
    "certificate elsewhere": {**HEADER, "x5u": "http://127.0.0.1:1/cert"},
    "own certificate": {**HEADER, "x5c": ["MII"]},
    "critical": {**HEADER, "crit": ["exp"]},
    "unencoded payload": {**HEADER, "b64": False},
    "compressed": {**HEADER, "zip": "DEF"},
    "duplicate members": b'{"alg":"ES256","alg":"ES256","typ":"at+jwt","kid":"k"}',
    "a list": ["ES256"],
    "not JSON": b"{",
    "nothing": b"",
}


@pytest.mark.parametrize("header", BAD_HEADERS.values(), ids=BAD_HEADERS.keys())
async def test_a_header_with_a_trap_is_refused(header):
    await assert_refused(token(header))


BAD_CLAIMS = {
    "no expiry": claims(exp=UNSET),
    "expiry as text": claims(exp=str(CLAIMS["exp"])),
    "expiry as fraction": claims(exp=CLAIMS["exp"] + 0.5),
    "expiry as whole fraction": json.dumps(CLAIMS).replace(str(CLAIMS["exp"]), f"{CLAIMS['exp']}.0").encode(),
    "expiry true": claims(exp=True),
    "expiry null": claims(exp=None),
    "expiry in a hundred years": claims(exp=NOW + 100 * 365 * 86400),
    "expiry beyond numbers": json.dumps(CLAIMS).replace(str(CLAIMS["exp"]), "1e400").encode(),
    "expiry NaN": json.dumps(CLAIMS).replace(str(CLAIMS["exp"]), "NaN").encode(),
    "lifetime of 301 seconds": claims(exp=NOW + 301),
    "lifetime of nothing": claims(exp=NOW),
    "expired 11 seconds ago": claims(iat=NOW - 100, exp=NOW - 11),
    "no time of issue": claims(iat=UNSET),
    "issued in 11 seconds": claims(iat=NOW + 11, exp=NOW + 300),
    "not before 11 seconds": claims(nbf=NOW + 11),
    "not before as text": claims(nbf=str(NOW)),
    "no issuer": claims(iss=UNSET),
    "issuer with a slash": claims(iss=ISSUER + "/"),
    "issuer in capitals": claims(iss=ISSUER.upper()),
    "no audience": claims(aud=UNSET),
    "another audience": claims(aud="billing"),
    "audiences": claims(aud=["clinic-api"]),
    "no subject": claims(sub=UNSET),
    "subject that is no UUID": claims(sub="admin"),
    "no token id": claims(jti=UNSET),
    "unknown kind": claims(kind="system"),
    "patient without a patient": claims(patient=UNSET),
    "roles as text": claims(roles="admin"),
    "scope as a list": claims(scope=["a"]),
    "network as number": claims(network=1),
    "centre that is no UUID": claims(centres=["all"]),
    "duplicate subject": json.dumps(CLAIMS).replace('"sub"', f'"sub": "{uuid4()}", "sub"').encode(),
    "a list": [CLAIMS],
    "not JSON": b"x",
    "deep": b"[" * 2000 + b"]" * 2000,
}


@pytest.mark.parametrize("payload", BAD_CLAIMS.values(), ids=BAD_CLAIMS.keys())
async def test_claims_with_a_trap_are_refused(payload):
    await assert_refused(token(claims=payload))


@pytest.mark.parametrize(
    "payload",
    [
        claims(iat=NOW - 100, exp=NOW - 9),
        claims(nbf=NOW + 9),
        claims(iat=NOW + 9, exp=NOW + 309),
        claims(nbf=UNSET),
    ],
)
async def test_clocks_may_differ_by_ten_seconds(payload):
    assert (await verifier().verify(token(claims=payload))).subject == PRINCIPAL.subject


async def test_a_key_never_serves_another_algorithm():
    """A public key is no secret: HMAC over it proves nothing."""
    public = SIGNER.key.public_key
    for secret in (
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(SIGNER.public_jwks()["keys"][0]).encode(),
    ):
        signing_input = f"{encoded({**HEADER, 'alg': 'HS256'})}.{encoded(CLAIMS)}"
        mac = hmac.digest(secret, signing_input.encode(), "sha256")
        for signature in (mac, mac * 2):
            await assert_refused(f"{signing_input}.{encoded(signature)}")


async def test_the_signature_must_be_of_the_key_that_is_named():
    await assert_refused(token(key=STRANGER.key))
    await assert_refused(token({**HEADER, "kid": STRANGER.key_id}, key=STRANGER.key))


async def test_no_altered_token_passes():
    good = token()
    for position in range(len(good)):
        for replacement in ("A" if good[position] != "A" else "B", "=", " ", "\n", "."):
            altered = good[:position] + replacement + good[position + 1 :]
            if altered == good:
                continue
            with pytest.raises(UnauthenticatedError):
                await verifier().verify(altered)


@pytest.mark.parametrize(
    "spoil",
    [lambda t: t + "=", lambda t: t + "\n", lambda t: " " + t, lambda t: t + ".", lambda t: t.rpartition(".")[0] + ".",
     lambda t: t.replace(".", ".."), lambda t: t[:-1], lambda t: t * 2, lambda t: "", lambda t: t + "x" * 9000],
)  # fmt: skip
async def test_a_token_of_another_form_is_refused(spoil):
    await assert_refused(spoil(token()))


async def test_other_spellings_of_the_same_bytes_are_refused():
    """86 characters hold four bits more than a signature has."""
    good = token()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(good[-1])
    for bits in range(1, 16):
        await assert_refused(good[:-1] + alphabet[last ^ bits])


ASCII = st.text(st.characters(codec="ascii"), max_size=30)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300) | st.builds("{}.{}.{}".format, ASCII, ASCII, ASCII))
@example("\ud800")
@example("é.é.é")
def test_arbitrary_text_is_refused_and_nothing_else(candidate):
    asyncio.run(assert_refused(candidate))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3)
    ),
)


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(CLAIMS)), value=JSON)
def test_an_arbitrary_claim_is_taken_as_it_is_or_refused(name, value):
    async def check():
        try:
            principal = await verifier().verify(token(claims=claims(**{name: value})))
        except UnauthenticatedError:
            return
        assert principal.subject == PRINCIPAL.subject or name == "sub"

    asyncio.run(check())


@settings(max_examples=200, deadline=None)
@given(header=JSON | st.dictionaries(st.sampled_from(["alg", "typ", "kid", "jwk"]), JSON), payload=JSON)
def test_arbitrary_signed_json_is_refused(header, payload):
    asyncio.run(assert_refused(token(header, payload)))
    asyncio.run(assert_refused(token(HEADER, payload)))


async def test_a_remembered_token_expires_like_any_other():
    clock = FixedClock()
    checked_by, good = verifier(clock), token()
    await checked_by.verify(good)
    clock.advance(seconds=309)
    await checked_by.verify(good)
    clock.advance(seconds=1)
    await assert_refused(good, checked_by)


async def test_a_withdrawn_key_ends_what_it_signed_at_once():
    source = StaticKeys(SIGNER.public_jwks())
    checked_by, good = TokenVerifier(source, issuer=ISSUER, clock=CLOCK), token()
    await checked_by.verify(good)
    source.replace({"keys": STRANGER.public_jwks()["keys"]})
    await assert_refused(good, checked_by)


async def test_no_more_tokens_are_remembered_than_that(monkeypatch):
    monkeypatch.setattr(auth, "MAX_CACHED_TOKENS", 3)
    checked_by = verifier()
    for _ in range(10):
        await checked_by.verify(token(claims=claims(jti=str(uuid4()))))
    assert len(checked_by._verified) == 3


def test_only_a_private_p256_key_signs():
    for key in (ECKey.generate_key("P-384"), ECKey.import_key(SIGNER.key.as_dict(private=False))):
        with pytest.raises(ValueError, match="P-256"):
            TokenSigner(key, issuer=ISSUER)


def test_unfit_keys_of_a_set_are_left_out():
    public = SIGNER.public_jwks()["keys"][0]
    unfit = [
        RSAKey.generate_key(2048).as_dict(private=False, kid="rsa"),
        OctKey.generate_key(256).as_dict(kid="oct"),
        {**ECKey.generate_key("P-384").as_dict(private=False), "kid": "p384"},
        {**public, "use": "enc"},
        {**public, "alg": "ES384"},
        {**SIGNER.key.as_dict(private=True), "kid": "private"},
        {k: v for k, v in public.items() if k != "kid"},
        "text",
    ]
    assert jwks.read_jwks({"keys": unfit}) == {}
    nothings: tuple[object, ...] = ({}, [], None, {"keys": {}})
    for nothing in nothings:
        with pytest.raises(ValueError, match="JWK Set"):
            jwks.read_jwks(nothing)


class Monotonic:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Issuer:
    """An HTTP server that answers what it is told to and counts."""

    def __init__(self):
        self.body = json.dumps(SIGNER.public_jwks()).encode()
        self.status = "200 OK"
        self.requests = 0
        self.url = ""

    async def answer(self, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        head = f"HTTP/1.1 {self.status}\r\nContent-Length: {len(self.body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + self.body)
        await writer.drain()
        writer.close()


@pytest.fixture
async def issuer():
    made = Issuer()
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/.well-known/jwks.json"
    async with server:
        yield made


@asynccontextmanager
async def remote(issuer, monotonic):
    source = RemoteKeys(issuer.url, monotonic=monotonic)
    yield source, TokenVerifier(source, issuer=ISSUER, clock=CLOCK)
    if source._background:
        await source._background


async def test_keys_are_read_once_for_many_tokens(issuer):
    async with remote(issuer, Monotonic()) as (source, checked_by):
        assert not source.loaded
        tokens = [token(claims=claims(jti=str(uuid4()))) for _ in range(20)]
        await asyncio.gather(*map(checked_by.verify, tokens))
        assert source.loaded
        assert issuer.requests == 1


async def test_invented_key_ids_cannot_flood_the_issuer(issuer):
    monotonic = Monotonic()
    async with remote(issuer, monotonic) as (_, checked_by):
        await checked_by.verify(token())
        for _ in range(50):
            await assert_refused(token({**HEADER, "kid": str(uuid4())}), checked_by)
        assert issuer.requests == 1
        monotonic.now += 30
        await assert_refused(token({**HEADER, "kid": str(uuid4())}), checked_by)
        assert issuer.requests == 2


async def test_a_new_key_is_found_and_a_withdrawn_one_forgotten(issuer):
    monotonic = Monotonic()
    async with remote(issuer, monotonic) as (_, checked_by):
        await checked_by.verify(token())
        issuer.body = json.dumps(STRANGER.public_jwks()).encode()
        monotonic.now += 30
        await checked_by.verify(token({**HEADER, "kid": STRANGER.key_id}, key=STRANGER.key))
        await assert_refused(token(), checked_by)


async def test_the_issuers_absence_is_survived_for_a_day(issuer):
    monotonic = Monotonic()
    async with remote(issuer, monotonic) as (_, checked_by):
        await checked_by.verify(token())
        issuer.status = "503 Service Unavailable"
        monotonic.now += 23 * 3600
        await checked_by.verify(token(claims=claims(jti="another")))
        monotonic.now += 3601
        with pytest.raises(TemporarilyUnavailableError):
            await checked_by.verify(token())
        issuer.status = "200 OK"
        monotonic.now += 1
        await checked_by.verify(token())


async def test_stale_keys_are_refreshed_without_waiting(issuer):
    monotonic = Monotonic()
    async with remote(issuer, monotonic) as (source, checked_by):
        await checked_by.verify(token())
        monotonic.now += 300
        await checked_by.verify(token(claims=claims(jti="another")))
        await source._background
        assert issuer.requests == 2


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"!","y":"!"}]}',
                                  b'{"keys":[]}' + b" " * 70000])  # fmt: skip
async def test_without_any_keys_yet_a_token_is_not_refused_but_asked_for_later(issuer, body):
    issuer.body = body
    async with remote(issuer, Monotonic()) as (source, checked_by):
        with pytest.raises(TemporarilyUnavailableError):
            await checked_by.verify(token())
        assert not source.loaded


async def test_no_url_in_a_token_is_ever_opened(issuer):
    for name in ("jku", "x5u"):
        await assert_refused(token({**HEADER, name: issuer.url}))
    assert issuer.requests == 0


async def test_settings_without_an_issuer_refuse_every_token():
    settings = ServiceSettings(database_url="postgresql://x", amqp_url="amqp://x")
    checked_by = TokenVerifier.from_settings(settings)
    assert checked_by.source.loaded
    await assert_refused(token(), checked_by)
