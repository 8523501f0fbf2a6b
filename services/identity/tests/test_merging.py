"""Merged patients: a login of either record reaches both, and its own alone as soon as that is undone."""

from typing import Any
from uuid import UUID

import httpx
import pytest

from .conftest import Network
from .test_login import claims_in

OLD_LOGIN, LOGIN = "double@example.org", "anna@example.org"


@pytest.fixture
async def anna(network: Network) -> UUID:
    return await network.know_patient()


@pytest.fixture
async def double(network: Network) -> UUID:
    """A second record of the same person."""
    return await network.know_patient()


async def invite(network: Network, patient_id: UUID, login: str) -> httpx.Response:
    body = {"patient_id": str(patient_id), "login": login}
    return await network.post("/v1/users/patients", body, by=network.identity.principal("registrar"))


async def at_the_desk(network: Network, patient_id: UUID, act: str) -> httpx.Response:
    path = f"/v1/users/patients/{patient_id}/{act}"
    return await network.post(path, {}, by=network.identity.principal("registrar"))


async def logged_in(network: Network, patient_id: UUID, login: str) -> dict[str, Any]:
    invited = await invite(network, patient_id, login)
    assert invited.status_code == 201, invited.text
    return await network.session_of(login, invited.json()["initial_password"])


def reach(session: dict[str, Any]) -> tuple[str, list[str]]:
    claims = claims_in(session["access_token"])
    return claims["patient"], claims.get("patient_records", [])


async def test_a_login_of_either_record_reaches_both(network: Network, anna: UUID, double: UUID) -> None:
    old, new = (
        await logged_in(network, double, OLD_LOGIN),
        await logged_in(network, anna, LOGIN),
    )
    assert (reach(old), reach(new)) == ((str(double), []), (str(anna), []))
    await network.identity.tell_of_merge(double, anna)
    both = sorted([str(anna), str(double)])
    for session in (old, new):
        refreshed = (await network.refresh(session["refresh_token"])).json()
        assert reach(refreshed) == (str(anna), both)
        me = await network.with_token("GET", "/v1/me", refreshed["access_token"])
        assert me.json()["patient_id"] == str(anna)


async def test_undone_the_sessions_end_and_each_login_reaches_its_own_again(
    network: Network, anna: UUID, double: UUID
) -> None:
    invited = (await invite(network, double, OLD_LOGIN)).json()
    await network.session_of(OLD_LOGIN, invited["initial_password"])
    merge_id = await network.identity.tell_of_merge(double, anna)
    session = await network.session_of(OLD_LOGIN, invited["initial_password"])
    await network.identity.tell_of_merge(double, anna, merge_id=merge_id, undone=True)
    revoked = [e.data["reason_code"] for e in await network.identity.events("identity.session-revoked.v1")]
    assert revoked == ["patients-unmerged"] * 2
    assert (await network.refresh(session["refresh_token"])).status_code == 401
    again = await network.session_of(OLD_LOGIN, invited["initial_password"])
    assert reach(again) == (str(double), [])
    # Told late, of what was before, or once more: changes nothing, and ends nobody's session.
    await network.identity.tell_of_merge(double, anna, merge_id=merge_id)
    await network.identity.tell_of_merge(double, anna, merge_id=merge_id, undone=True)
    assert reach((await network.refresh(again["refresh_token"])).json()) == (str(double), [])


async def test_who_isnt_of_the_merge_reaches_and_loses_nothing(
    network: Network, anna: UUID, double: UUID
) -> None:
    stranger = await network.know_patient()
    session = await logged_in(network, stranger, LOGIN)
    merge_id = await network.identity.tell_of_merge(double, anna)
    session = (await network.refresh(session["refresh_token"])).json()
    assert reach(session) == (str(stranger), [])
    await network.identity.tell_of_merge(double, anna, merge_id=merge_id, undone=True)
    assert (await network.refresh(session["refresh_token"])).status_code == 200


async def test_the_desk_finds_the_login_of_either_record(network: Network, anna: UUID, double: UUID) -> None:
    invited = (await invite(network, double, OLD_LOGIN)).json()
    assert (await at_the_desk(network, anna, "initial-password")).status_code == 404
    await network.identity.tell_of_merge(double, anna)
    second = await invite(network, anna, LOGIN)
    assert (second.status_code, second.json()["type"]) == (409, "/problems/patient-has-login")
    renewed = (await at_the_desk(network, anna, "initial-password")).json()
    assert (renewed["login"], renewed["account_id"]) == (OLD_LOGIN, invited["account_id"])


async def test_taken_away_a_person_has_no_login_by_any_record(
    network: Network, anna: UUID, double: UUID
) -> None:
    sessions = [await logged_in(network, double, OLD_LOGIN), await logged_in(network, anna, LOGIN)]
    await network.identity.tell_of_merge(double, anna)
    assert (await at_the_desk(network, anna, "deactivate")).status_code == 204
    for session in sessions:
        assert (await network.refresh(session["refresh_token"])).status_code == 401


async def test_who_is_invited_by_a_replaced_record_gets_the_login_of_the_one_in_use(
    network: Network, anna: UUID, double: UUID
) -> None:
    await network.identity.tell_of_merge(double, anna)
    assert (await invite(network, double, LOGIN)).json()["patient_id"] == str(anna)
