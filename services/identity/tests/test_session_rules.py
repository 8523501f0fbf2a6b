"""How many sessions at a time, how long they idle, from where; a shared workstation's lock."""

import asyncio
import json
from collections import Counter
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest
from clinic_identity.places import PlaceRefusedError, Places
from clinic_shared.events import audit_outbox
from mmdb_writer import MMDBWriter
from netaddr import IPSet
from sqlalchemy import select

from .conftest import ADMIN_LOGIN, ADMIN_PASSWORD, Installation, Network
from .factors import enrol_app

REVOKED = "identity.session-revoked.v1"


@pytest.fixture
async def strict(installation: Installation) -> Any:
    async with installation.start(enforce_sign_in_policy=True) as running:
        yield Network(running, running.principal("system-administrator"))


async def open_at_once(installation: Installation, login: str, password: str, devices: list[str]) -> Any:
    """Log in with every device at the same time, where the policy is enforced."""
    async with installation.start(enforce_sign_in_policy=True) as running:
        network = Network(running, running.principal("system-administrator"))

        async def log_in(device: str) -> httpx.Response:
            body = {"login": login, "password": password, "device_token": device}
            return await network.identity.http.post("/v1/auth/login", json=body)

        answers = await asyncio.gather(*(log_in(device) for device in devices))
        opened = [answer.json() for answer in answers if answer.status_code == 200]
        refreshed = [await network.refresh(one["refresh_token"]) for one in opened]
        refused = Counter(answer.json()["type"] for answer in answers if answer.status_code != 200)
        return len(opened), [answer.status_code for answer in refreshed].count(200), refused


async def devices_of(network: Network, login: str, password: str) -> list[str]:
    """Let fifty devices be known, each with a count of its own, and leave no session behind."""
    sessions = [await network.session_of(login, password) for _ in range(50)]
    for session in sessions:
        await network.with_token("POST", "/v1/auth/logout", session["access_token"])
    return [session["device_token"] for session in sessions]


async def test_of_fifty_logins_of_an_administrator_at_once_one_gets_a_session(
    installation: Installation,
) -> None:
    async with installation.start() as relaxed:
        devices = await devices_of(Network(relaxed, relaxed.principal()), ADMIN_LOGIN, ADMIN_PASSWORD)
    opened, live, refused = await open_at_once(installation, ADMIN_LOGIN, ADMIN_PASSWORD, devices)
    assert (opened, live) == (1, 1)
    assert refused == {"/problems/session-limit": 49}


async def test_of_fifty_logins_of_a_doctor_at_once_the_newest_three_stay(installation: Installation) -> None:
    async with installation.start() as relaxed:
        network = Network(relaxed, relaxed.principal("system-administrator"))
        member = await network.add_member()
        devices = await devices_of(network, member["login"], member["initial_password"])
    opened, live, refused = await open_at_once(
        installation, member["login"], member["initial_password"], devices
    )
    assert (opened, live, refused) == (50, 3, {})


async def test_an_idle_session_makes_room(strict: Network, clock: Any) -> None:
    await strict.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
    assert (await strict.log_in(ADMIN_LOGIN, ADMIN_PASSWORD)).status_code == 409
    clock.advance(minutes=10)
    assert (await strict.log_in(ADMIN_LOGIN, ADMIN_PASSWORD)).status_code == 200


async def test_a_role_says_how_long_a_session_idles_and_lasts(strict: Network, clock: Any) -> None:
    session = await strict.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
    lasts = (await strict.with_token("GET", "/v1/sessions", session["access_token"])).json()[0]
    assert lasts["expires_at"] == "2026-03-02T14:00:00Z"  # eight hours
    clock.advance(minutes=11)
    assert (await strict.refresh(session["refresh_token"])).status_code == 401


async def test_an_administrator_sees_and_ends_all_sessions_of_somebody(network: Network) -> None:
    member = await network.add_member()
    theirs = [await network.session_of(member["login"], member["initial_password"]) for _ in range(2)]
    path = f"/v1/users/{member['staff_id']}/sessions"
    listed = (await network.get(path)).json()
    assert [one["session_id"] for one in listed] == [one["session_id"] for one in theirs]
    assert {(one["address"], one["current"]) for one in listed} == {("203.0.113.7", False)}
    headers = network.identity.headers(network.admin)
    assert (await network.identity.http.delete(path, headers=headers)).status_code == 204
    assert (await network.get(path)).json() == []
    assert (await network.refresh(theirs[0]["refresh_token"])).status_code == 401
    clerk = network.identity.principal("registrar")
    assert (await network.get(path, by=clerk)).status_code == 403


# -- a shared workstation

PIN = "274918"


async def with_pin(network: Network, pin: str = PIN) -> dict[str, Any]:
    session = await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
    chosen = await network.with_token("PUT", "/v1/me/pin", session["access_token"], {"pin": pin})
    assert chosen.status_code == 204, chosen.text
    return session


async def lock(network: Network, session: dict[str, Any]) -> None:
    locked = await network.with_token("POST", "/v1/sessions/current/lock", session["access_token"], {})
    assert locked.status_code == 204, locked.text


async def unlock(network: Network, session: dict[str, Any], **shown: str) -> httpx.Response:
    body = {"refresh_token": session["refresh_token"], **shown}
    return await network.identity.http.post("/v1/auth/unlock", json=body)


async def test_a_locked_session_opens_with_the_pin_and_keeps_its_strength(network: Network) -> None:
    session = await with_pin(network)
    await enrol_app(network, session["access_token"])
    await lock(network, session)
    [event] = [event.data for event in await network.identity.events(REVOKED)]
    assert (event["session_id"], event["reason_code"]) == (session["session_id"], "locked")
    refused = await network.refresh(session["refresh_token"])
    assert (refused.status_code, refused.json()["type"]) == (401, "/problems/session-locked")
    opened = await unlock(network, session, pin=PIN)
    assert opened.status_code == 200, opened.text
    assert opened.json()["session_id"] != session["session_id"]
    assert opened.json()["session_expires_at"] == session["session_expires_at"]
    principal = await network.identity.runtime.verifier.verify(opened.json()["access_token"])
    assert principal.acr == "aal2"


async def test_a_session_stays_locked_after_five_wrong_pins(network: Network) -> None:
    session = await with_pin(network)
    await lock(network, session)
    for _ in range(5):
        assert (await unlock(network, session, pin="999998")).status_code == 401
    assert (await unlock(network, session, pin=PIN)).status_code == 401
    assert (await unlock(network, session, password=ADMIN_PASSWORD)).status_code == 401


async def test_the_password_unlocks_too_and_each_lock_opens_once(network: Network) -> None:
    session = await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
    await lock(network, session)
    assert (await unlock(network, session, pin=PIN)).status_code == 401  # there is none
    answers = await asyncio.gather(*(unlock(network, session, password=ADMIN_PASSWORD) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 401]


async def test_a_lock_that_outlived_the_session_does_not_open(network: Network, clock: Any) -> None:
    session = await with_pin(network)
    await lock(network, session)
    clock.advance(hours=12)
    assert (await unlock(network, session, pin=PIN)).status_code == 401


async def test_a_pin_opens_nothing_that_was_not_locked(network: Network) -> None:
    session = await with_pin(network)
    assert (await unlock(network, session, pin=PIN)).status_code == 401
    await network.with_token("POST", "/v1/auth/logout", session["access_token"])
    assert (await unlock(network, session, pin=PIN)).status_code == 401


@pytest.mark.parametrize("pin", ["111111", "123456", "987654321"])
async def test_a_pin_that_anybody_would_try_is_refused(network: Network, pin: str) -> None:
    session = await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
    answer = await network.with_token("PUT", "/v1/me/pin", session["access_token"], {"pin": pin})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/weak-pin")


# -- places

RULES = """
roles:
  system-administrator: {networks: [192.0.2.0/24, "2001:db8::/32"]}
  doctor: {networks: [192.0.2.0/24], countries: [NZ]}
"""


def is_allowed(places: Places, roles: set[str], address: str) -> bool:
    try:
        places.require(roles, address)
    except PlaceRefusedError:
        return False
    return True


@pytest.fixture
def countries(tmp_path: Path) -> Path:
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type="Test-Country")
    writer.insert_network(IPSet([str(ip_network("198.51.100.0/24"))]), {"country": {"iso_code": "NZ"}})
    file = tmp_path / "countries.mmdb"
    writer.to_db_file(str(file))
    return file


def test_a_role_may_be_used_from_its_networks_and_countries(tmp_path: Path, countries: Path) -> None:
    rules = tmp_path / "places.yaml"
    rules.write_text(RULES)
    places = Places.load(rules, countries)
    admin, doctor, clerk = {"system-administrator"}, {"doctor"}, {"registrar"}
    assert is_allowed(places, admin, "192.0.2.7")
    assert is_allowed(places, admin, "::ffff:192.0.2.7")
    assert is_allowed(places, admin, "2001:db8::7")
    assert not is_allowed(places, admin, "198.51.100.7")
    assert not is_allowed(places, admin, "unknown")
    assert is_allowed(places, doctor, "198.51.100.7")
    assert not is_allowed(places, doctor, "203.0.113.7")
    assert not is_allowed(places, doctor | admin, "198.51.100.7")  # both have to allow it
    assert is_allowed(places, clerk, "unknown")


def test_rules_that_name_countries_need_their_database(tmp_path: Path) -> None:
    rules = tmp_path / "places.yaml"
    rules.write_text(RULES)
    with pytest.raises(ValueError, match="CLINIC_COUNTRY_DATABASE_FILE"):
        Places.load(rules, None)


async def test_a_session_that_moves_out_of_its_networks_is_not_refreshed(
    installation: Installation, tmp_path: Path
) -> None:
    rules = tmp_path / "places.yaml"
    rules.write_text("roles: {system-administrator: {networks: [203.0.113.0/24]}}")
    async with installation.start(sign_in_places_file=rules) as running:
        network = Network(running, running.principal())
        outside = await network.log_in(ADMIN_LOGIN, ADMIN_PASSWORD, address="198.51.100.7")
        assert (outside.status_code, outside.json()["type"]) == (403, "/problems/place-refused")
        session = await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)

        async def refresh_from(address: str) -> int:
            body = {"refresh_token": session["refresh_token"]}
            headers = {"X-Forwarded-For": address}
            return (await running.http.post("/v1/auth/refresh", json=body, headers=headers)).status_code

        assert await refresh_from("198.51.100.7") == 403
        assert await refresh_from("203.0.113.9") == 200


async def test_the_audit_of_a_login_names_its_country_and_nothing_else_of_the_address(
    installation: Installation, countries: Path
) -> None:
    async with installation.start(country_database_file=countries) as running:
        network = Network(running, running.principal())
        await network.log_in(ADMIN_LOGIN, ADMIN_PASSWORD, address="198.51.100.7")
        await network.log_in(ADMIN_LOGIN, ADMIN_PASSWORD, address="203.0.113.7")
        async with running.runtime.database.transaction() as tx:
            rows = await tx.fetch_all(select(audit_outbox.c.record).order_by(audit_outbox.c.id))
    logins = [record for row in rows if (record := json.loads(row.record))["entity"]["type"] == "Login"]
    assert [login["details"].get("country") for login in logins] == ["NZ", None]
    assert "198.51.100.7" not in str(logins)
