"""What attackers type at the login and do at the same time (OWASP ASVS 5, chapter 6)."""

import asyncio
from typing import Any

import pytest
from clinic_identity.desk import Desk
from clinic_identity.passwords import PasswordHasher
from clinic_identity.tables import second_factor
from clinic_shared.ids import uuid7
from sqlalchemy import select

from .conftest import ADMIN_LOGIN, ADMIN_PASSWORD, Network

MEBIBYTE = 1024 * 1024


@pytest.fixture
def hasher(network: Network) -> PasswordHasher:
    return network.identity.runtime.resources[Desk].passwords


async def test_passwords_that_differ_at_their_end_are_different(hasher: PasswordHasher) -> None:
    """bcrypt, for one, reads 72 bytes."""
    place, shared = uuid7(), "a" * 90
    stored = await hasher.hash(f"{shared}1", place=place)
    assert await hasher.matches(f"{shared}1", stored, place=place)
    assert not await hasher.matches(f"{shared}2", stored, place=place)


async def test_a_password_of_a_megabyte_is_refused_unhashed(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Any] = []

    async def count(*_: Any, **__: Any) -> bool:
        hashed.append(None)
        return False

    monkeypatch.setattr(PasswordHasher, "matches", count)
    for length in (2000, MEBIBYTE):
        assert (await network.log_in(ADMIN_LOGIN, "p" * length)).status_code in {413, 422}
    assert hashed == []


async def test_of_two_apps_enrolled_at_once_the_account_has_one(network: Network) -> None:
    token = (await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD))["access_token"]
    begun = await asyncio.gather(
        *(network.with_token("POST", "/v1/me/mfa/totp", token, {"label": f"Phone {n}"}) for n in range(4))
    )
    assert {answer.status_code for answer in begun} == {201}
    async with network.identity.runtime.database.transaction() as tx:
        kept = (await tx.execute(select(second_factor.c.factor_id))).scalars().all()
    assert len(kept) == 1


@pytest.mark.parametrize("spelled", ["аdmin@example.org", "admin\u200b@example.org", "admın@example.org"])
async def test_a_login_in_other_characters_that_look_alike_is_not_mistaken(
    network: Network, spelled: str
) -> None:
    """A Cyrillic letter, a character without width, a dotless i."""
    answer = await network.log_in(spelled, ADMIN_PASSWORD)
    assert answer.status_code in {401, 422}
    assert spelled not in answer.text
