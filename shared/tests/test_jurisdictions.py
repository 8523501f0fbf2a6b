"""To which countries patients' data may go: data for each jurisdiction, and what the operator adds."""

import pytest
from clinic_shared.errors import TransferNotAllowedError
from clinic_shared.jurisdictions import TransferSettings, transfers
from pydantic import ValidationError


@pytest.mark.parametrize(
    ("jurisdiction", "country", "allowed"),
    [
        ("gdpr", "DE", True),
        ("gdpr", "NO", True),
        ("gdpr", "US", True),
        ("gdpr", "IN", False),
        ("152-fz", "RU", True),
        ("152-fz", "DE", False),
        ("hipaa", "IN", True),
    ],
)
def test_each_jurisdiction_says_where_data_may_go(jurisdiction: str, country: str, allowed: bool) -> None:
    settings = TransferSettings(jurisdiction=jurisdiction)
    assert settings.may_send_to(country) is allowed
    assert TransferSettings(jurisdiction=jurisdiction, transfers_also_to="IN,DE").may_send_to("IN")


def test_a_refusal_names_the_law() -> None:
    with pytest.raises(TransferNotAllowedError) as refused:
        TransferSettings(jurisdiction="152-fz").require_transfer("US")
    assert "152-FZ" in str(refused.value.extensions["basis"])


@pytest.mark.parametrize("countries", ["usa", "US;DE", "US,", "us"])
def test_countries_are_written_as_iso_3166_has_them(countries: str) -> None:
    with pytest.raises(ValidationError):
        TransferSettings(transfers_also_to=countries)


def test_every_profile_names_its_law() -> None:
    assert set(transfers()) == {"gdpr", "152-fz", "hipaa"}
    assert all(profile.basis for profile in transfers().values())
