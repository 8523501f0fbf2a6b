"""What a service takes: the gateway's tokens for itself, and the issuer's own as long as it is told to."""

from typing import Any

import pytest
from clinic_shared.auth import TokenSigner, TokenVerifier, claims_of
from clinic_shared.errors import UnauthenticatedError
from clinic_shared.ids import uuid7
from clinic_shared.internal_tokens import ACTOR, ISSUER, ServiceVerifier, audience_of
from clinic_shared.principal import Principal
from clinic_shared.testing import FixedClock
from joserfc.jwk import ECKey

IDENTITY = "https://clinic.test"
KEY = ECKey.generate_key("P-256")
CALLER = Principal(subject=uuid7(), kind="staff", scopes=frozenset({"profile.read"}))


@pytest.fixture
def identity() -> TokenSigner:
    return TokenSigner.generate(issuer=IDENTITY)


def gateway(service: str = "patients", *, key: ECKey = KEY, issuer: str = ISSUER) -> TokenSigner:
    return TokenSigner(key, issuer=issuer, audience=audience_of(service))


def verifier(identity: TokenSigner, clock: FixedClock, *, internal_only: bool) -> ServiceVerifier:
    external = TokenVerifier.static(identity.public_jwks(), issuer=IDENTITY, clock=clock)
    return ServiceVerifier(
        external,
        service="patients",
        gateway_keys=gateway().public_jwks(),
        internal_only=internal_only,
        clock=clock,
    )


def claims(clock: FixedClock, *, lifetime: int = 60, **more: Any) -> dict[str, Any]:
    made = claims_of(CALLER, issued_at=clock.now(), lifetime_seconds=lifetime)
    return {**made, "act": ACTOR, **more}


@pytest.mark.parametrize("internal_only", [False, True])
async def test_the_gateways_token_for_this_service_is_taken(
    identity: TokenSigner, clock: FixedClock, internal_only: bool
) -> None:
    checked = verifier(identity, clock, internal_only=internal_only)
    principal = await checked.verify(gateway().sign(claims(clock)))
    assert (principal.subject, principal.scopes) == (CALLER.subject, CALLER.scopes)


@pytest.mark.parametrize("internal_only", [False, True])
async def test_the_issuers_own_is_taken_unless_told_otherwise(
    identity: TokenSigner, clock: FixedClock, internal_only: bool
) -> None:
    token = identity.sign(claims_of(CALLER, issued_at=clock.now()))
    checked = verifier(identity, clock, internal_only=internal_only)
    if internal_only:
        with pytest.raises(UnauthenticatedError):
            await checked.verify(token)
    else:
        assert (await checked.verify(token)).subject == CALLER.subject


@pytest.mark.parametrize("internal_only", [False, True])
async def test_a_token_that_is_off_in_any_way_is_refused(
    identity: TokenSigner, clock: FixedClock, internal_only: bool
) -> None:
    good = claims(clock)
    without_actor = {name: value for name, value in good.items() if name != "act"}
    tokens = {
        "another service's": gateway("billing").sign(good),
        "another issuer's": gateway(issuer=IDENTITY).sign(good),
        "another key's": gateway(key=ECKey.generate_key("P-256")).sign(good),
        "nobody's": gateway().sign(without_actor),
        "somebody else's": gateway().sign({**good, "act": {"sub": "billing"}}),
        "a chain's": gateway().sign({**good, "act": {"sub": "gateway", "act": {"sub": "billing"}}}),
        "longer than a minute": gateway().sign(claims(clock, lifetime=61)),
        "the issuer's for a service": TokenSigner(
            identity.key, issuer=IDENTITY, audience=audience_of("patients")
        ).sign(good),
        "the issuer's with an actor": identity.sign(good),
        "the issuer's in the gateway's name": TokenSigner(
            identity.key, issuer=ISSUER, audience=audience_of("patients")
        ).sign(good),
        "nonsense": "x.y.z",
        "": "",
        "no dots": "x" * 9000,
    }
    checked = verifier(identity, clock, internal_only=internal_only)
    taken = []
    for name, token in tokens.items():
        try:
            await checked.verify(token)
            taken.append(name)
        except UnauthenticatedError:
            continue
    assert taken == []


async def test_it_is_of_no_use_after_its_minute(identity: TokenSigner, clock: FixedClock) -> None:
    checked = verifier(identity, clock, internal_only=True)
    token = gateway().sign(claims(clock))
    await checked.verify(token)
    clock.advance(seconds=71)
    with pytest.raises(UnauthenticatedError):
        await checked.verify(token)


def test_internal_tokens_only_without_keys_to_know_them_by_is_a_mistake(
    identity: TokenSigner, clock: FixedClock
) -> None:
    external = TokenVerifier.static(identity.public_jwks(), issuer=IDENTITY, clock=clock)
    with pytest.raises(ValueError, match=r"gateway-keys\.json"):
        ServiceVerifier(external, service="patients", gateway_keys=None, internal_only=True)
