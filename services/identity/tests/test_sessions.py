"""Sessions: rotation, theft, idling, logging out, changing the password."""

import asyncio
from typing import Any

import pytest
from clinic_shared.ids import uuid7

from .conftest import ADMIN_LOGIN, ADMIN_PASSWORD, Installation, Network

REVOKED = "identity.session-revoked.v1"


@pytest.fixture
async def session(network: Network) -> dict[str, Any]:
    return await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)


async def revocations(network: Network) -> list[dict[str, Any]]:
    return [event.data for event in await network.identity.events(REVOKED)]


async def test_a_refresh_brings_new_tokens_of_the_same_session(
    network: Network, session: dict[str, Any]
) -> None:
    answer = await network.refresh(session["refresh_token"])
    assert answer.status_code == 200, answer.text
    fresh = answer.json()
    assert fresh["session_id"] == session["session_id"]
    assert fresh["refresh_token"] != session["refresh_token"]
    assert (await network.with_token("GET", "/v1/me", fresh["access_token"])).status_code == 200


@pytest.mark.parametrize("at_once", [2, 20])
async def test_of_refreshes_at_once_one_wins_and_the_session_ends(
    network: Network, session: dict[str, Any], at_once: int
) -> None:
    answers = await asyncio.gather(*(network.refresh(session["refresh_token"]) for _ in range(at_once)))
    assert sorted(answer.status_code for answer in answers) == [200, *[401] * (at_once - 1)]
    [winner] = [answer.json() for answer in answers if answer.status_code == 200]
    assert (await network.refresh(winner["refresh_token"])).status_code == 401
    assert len(await revocations(network)) == 1


async def test_a_token_used_twice_ends_the_session_for_the_thief_too(
    network: Network, session: dict[str, Any]
) -> None:
    fresh = (await network.refresh(session["refresh_token"])).json()
    stolen = await network.refresh(session["refresh_token"])
    assert stolen.status_code == 401
    assert stolen.json()["type"].endswith("/invalid-refresh-token")
    assert (await network.refresh(fresh["refresh_token"])).status_code == 401
    [event] = await revocations(network)
    assert event["session_id"] == session["session_id"]
    assert event["reason_code"] == "refresh-token-reused"
    reasons = [(r["outcome"], r["reason"]) for r in await network.audit() if r["entity"]["type"] == "Session"]
    assert reasons == [("4", "refresh-token-reused"), ("0", "refresh-token-reused")]


async def test_a_token_that_nobody_issued_changes_nothing(network: Network, session: dict[str, Any]) -> None:
    unknown = await network.refresh("rt_" + "x" * 43)
    assert unknown.status_code == 401
    assert await revocations(network) == []
    assert (await network.refresh(session["refresh_token"])).status_code == 200


async def test_an_idle_session_is_over(network: Network, session: dict[str, Any], clock: Any) -> None:
    clock.advance(minutes=14)
    fresh = (await network.refresh(session["refresh_token"])).json()
    clock.advance(minutes=15)
    assert (await network.refresh(fresh["refresh_token"])).status_code == 401


async def test_no_session_lasts_longer_than_half_a_day(
    network: Network, session: dict[str, Any], clock: Any
) -> None:
    for _ in range(12 * 60 // 10 - 1):
        clock.advance(minutes=10)
        answer = await network.refresh(session["refresh_token"])
        assert answer.status_code == 200
        session = answer.json()
    clock.advance(minutes=9)
    last = (await network.refresh(session["refresh_token"])).json()
    assert last["expires_in"] == 60  # the token ends with the session
    clock.advance(minutes=1)
    assert (await network.refresh(last["refresh_token"])).status_code == 401


async def test_logging_out_ends_the_session_everywhere(network: Network, session: dict[str, Any]) -> None:
    out = await network.with_token("POST", "/v1/auth/logout", session["access_token"])
    assert out.status_code == 204
    assert (await network.refresh(session["refresh_token"])).status_code == 401
    [event] = await revocations(network)
    assert (event["session_id"], event["reason_code"]) == (session["session_id"], "logout")
    again = await network.with_token("POST", "/v1/auth/logout", session["access_token"])
    assert again.status_code == 204
    assert len(await revocations(network)) == 1


async def test_ones_own_sessions_are_listed_and_ended(network: Network, session: dict[str, Any]) -> None:
    other = await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
    listed = await network.with_token("GET", "/v1/sessions", session["access_token"])
    assert [(one["session_id"], one["current"]) for one in listed.json()] == [
        (session["session_id"], True),
        (other["session_id"], False),
    ]
    path = f"/v1/sessions/{other['session_id']}"
    assert (await network.with_token("DELETE", path, session["access_token"])).status_code == 204
    assert (await network.refresh(other["refresh_token"])).status_code == 401
    assert (await network.refresh(session["refresh_token"])).status_code == 200


async def test_somebody_elses_session_is_not_there_for_me(network: Network, session: dict[str, Any]) -> None:
    member = await network.add_member()
    own = await network.session_of(member["login"], member["initial_password"])
    path = f"/v1/sessions/{session['session_id']}"
    assert (await network.with_token("DELETE", path, own["access_token"])).status_code == 404
    unknown = f"/v1/sessions/{uuid7()}"
    assert (await network.with_token("DELETE", unknown, own["access_token"])).status_code == 404
    assert (await network.refresh(session["refresh_token"])).status_code == 200


async def test_an_administrator_ends_anybodys_session(network: Network) -> None:
    member = await network.add_member()
    theirs = await network.session_of(member["login"], member["initial_password"])
    headers = network.identity.headers(network.admin)
    ended = await network.identity.http.delete(f"/v1/sessions/{theirs['session_id']}", headers=headers)
    assert ended.status_code == 204
    assert (await network.refresh(theirs["refresh_token"])).status_code == 401
    [event] = await revocations(network)
    assert event["principal_kind"] == "staff"
    missing = await network.identity.http.delete(f"/v1/sessions/{uuid7()}", headers=headers)
    assert missing.status_code == 404


# -- passwords


async def change(network: Network, token: str, current: str, new: str) -> Any:
    body = {"current_password": current, "new_password": new}
    return await network.with_token("POST", "/v1/me/password", token, body)


async def test_a_new_password_ends_all_other_sessions(network: Network) -> None:
    member = await network.add_member()
    mine = await network.session_of(member["login"], member["initial_password"])
    other = await network.session_of(member["login"], member["initial_password"])
    assert mine["must_change_password"] is True
    changed = await change(
        network, mine["access_token"], member["initial_password"], "a new and long password"
    )
    assert changed.status_code == 204, changed.text
    assert (await network.refresh(other["refresh_token"])).status_code == 401
    kept = await network.refresh(mine["refresh_token"])
    assert (kept.status_code, kept.json()["must_change_password"]) == (200, False)
    assert (await network.log_in(member["login"], member["initial_password"])).status_code == 401
    assert (await network.log_in(member["login"], "a new and long password")).status_code == 200


async def test_who_does_not_know_the_password_cannot_change_it(
    network: Network, session: dict[str, Any]
) -> None:
    token = session["access_token"]
    tries = [await change(network, token, "a guess of mine", "a new and long password") for _ in range(6)]
    assert [answer.status_code for answer in tries] == [401] * 5 + [429]


@pytest.mark.parametrize(
    ("new", "reason"),
    [("too short", "too-short"), ("aaaaaaaaaaaaaaaa", "repetitive"), (ADMIN_PASSWORD, "unchanged")],
)
async def test_a_weak_password_is_refused_with_the_reason(
    network: Network, session: dict[str, Any], new: str, reason: str
) -> None:
    answer = await change(network, session["access_token"], ADMIN_PASSWORD, new)
    assert answer.status_code == 422
    assert answer.json()["reasons"] == [reason]
    assert new not in answer.text


async def test_a_session_that_ended_cannot_change_the_password(
    network: Network, session: dict[str, Any]
) -> None:
    await network.with_token("POST", "/v1/auth/logout", session["access_token"])
    answer = await change(network, session["access_token"], ADMIN_PASSWORD, "a new and long password")
    assert answer.status_code == 401


async def test_where_it_is_enforced_an_initial_password_opens_only_its_own_change(
    installation: Installation,
) -> None:
    async with installation.start(enforce_password_change=True) as strict:
        network = Network(strict, strict.principal("system-administrator"))
        member = await network.add_member(roles=["registrar"], practitioner=False)
        session = await network.session_of(member["login"], member["initial_password"])
        me = await network.with_token("GET", "/v1/me", session["access_token"])
        assert me.json()["scopes"] == ["profile.read"]
        assert (await network.with_token("GET", "/v1/staff", session["access_token"])).status_code == 403
        changed = await change(
            network, session["access_token"], member["initial_password"], "a new and long password"
        )
        assert changed.status_code == 204
        fresh = (await network.refresh(session["refresh_token"])).json()
        assert (await network.with_token("GET", "/v1/staff", fresh["access_token"])).status_code == 200


async def test_an_initial_password_works_for_three_days(network: Network, clock: Any) -> None:
    member = await network.add_member()
    clock.advance(hours=72)
    assert (await network.log_in(member["login"], member["initial_password"])).status_code == 401


async def test_a_forgotten_password_is_replaced_by_an_initial_one(network: Network) -> None:
    member = await network.add_member()
    session = await network.session_of(member["login"], member["initial_password"])
    renewed = await network.post(f"/v1/staff/{member['staff_id']}/initial-password")
    assert renewed.status_code == 200, renewed.text
    assert (await network.refresh(session["refresh_token"])).status_code == 401
    assert (await network.log_in(member["login"], member["initial_password"])).status_code == 401
    assert (await network.log_in(member["login"], renewed.json()["initial_password"])).status_code == 200
    assert (await network.post(f"/v1/staff/{uuid7()}/initial-password")).status_code == 404


async def test_the_gateway_is_told_what_was_revoked_until_the_tokens_have_expired(
    network: Network, session: dict[str, Any], clock: Any
) -> None:
    async def told() -> list[dict[str, Any]]:
        answer = await network.identity.http.get("/internal/revocations")
        assert answer.status_code == 200, answer.text
        return list(answer.json()["revocations"])

    assert await told() == []
    await network.with_token("POST", "/v1/auth/logout", session["access_token"])
    [revoked] = await told()
    assert [revoked] == await revocations(network)
    assert revoked["session_id"] == session["session_id"]
    clock.advance(seconds=310)
    assert await told() == []
