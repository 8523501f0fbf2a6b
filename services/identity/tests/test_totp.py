"""Authenticator apps' codes, against RFC 6238's own examples."""

import base64
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from clinic_identity.totp import code_of_step, matching_step, new_secret, step_at, text_of, uri_of

RFC_SECRET = b"12345678901234567890"
NOW = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("second", "code"),
    [
        (59, "94287082"),
        (1111111109, "07081804"),
        (1111111111, "14050471"),
        (1234567890, "89005924"),
        (2000000000, "69279037"),
        (20000000000, "65353130"),
    ],
)
def test_the_rfcs_examples_come_out(second: int, code: str) -> None:
    step = step_at(datetime.fromtimestamp(second, UTC))
    assert code_of_step(RFC_SECRET, step) == code[-6:]


@pytest.mark.parametrize("steps", [-1, 0, 1])
def test_a_code_counts_a_step_early_and_late(steps: int) -> None:
    code = code_of_step(RFC_SECRET, step_at(NOW))
    assert matching_step(RFC_SECRET, code, NOW + timedelta(seconds=30 * steps)) == step_at(NOW)


@pytest.mark.parametrize("steps", [-2, 2])
def test_a_code_two_steps_away_is_none(steps: int) -> None:
    code = code_of_step(RFC_SECRET, step_at(NOW))
    assert matching_step(RFC_SECRET, code, NOW + timedelta(seconds=30 * steps)) is None


def test_an_app_reads_the_secret_from_the_uri() -> None:
    secret = new_secret()
    uri = urlsplit(uri_of(secret, issuer="Test clinic", account="anna.testova@example.org"))
    query = {name: values[0] for name, values in parse_qs(uri.query).items()}
    assert (uri.scheme, uri.netloc) == ("otpauth", "totp")
    assert uri.path == "/Test%20clinic:anna.testova%40example.org"
    assert query["issuer"] == "Test clinic"
    assert base64.b32decode(query["secret"]) == secret
    assert text_of(secret) == query["secret"]
