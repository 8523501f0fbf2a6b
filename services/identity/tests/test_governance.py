"""Rights that end by themselves, roles that take two people, and what nobody has certified."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from clinic_identity.dormancy import sweep_unused
from clinic_identity.settings import IdentitySettings
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal

from .conftest import ADMIN_LOGIN, Network

REASON = "Вымышленная причина"


def in_days(network: Network, days: float) -> str:
    return (network.identity.clock.now() + timedelta(days=days)).isoformat()


def officer(network: Network, **claims: Any) -> Principal:
    return network.identity.principal("privacy-officer", **claims)


async def put(network: Network, path: str, body: Any) -> dict[str, Any]:
    answer = await network.put(path, body, version=None)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def of_member(network: Network, member: dict[str, Any]) -> dict[str, Any]:
    return dict((await network.get(f"/v1/staff/{member['staff_id']}")).json())


async def is_in(network: Network, session: dict[str, Any]) -> bool:
    """Say whether a session still goes on."""
    answer = await network.refresh(session["refresh_token"])
    session["refresh_token"] = answer.json().get("refresh_token")
    return answer.status_code == 200


# -- leaving


async def test_who_leaves_is_out_within_a_minute_of_their_end_date(network: Network) -> None:
    member = await network.add_member()
    session = await network.session_of(member["login"], member["initial_password"])
    ends_at = (network.identity.clock.now() + timedelta(minutes=5)).isoformat()
    told = await put(
        network, f"/v1/staff/{member['staff_id']}/end-date", {"ends_at": ends_at, "reason": REASON}
    )
    assert told["reason"] == REASON
    network.identity.clock.advance(seconds=299)
    await network.identity.fire_timers()
    assert await is_in(network, session)
    network.identity.clock.advance(seconds=60)
    await network.identity.fire_timers()
    assert not await is_in(network, session)
    assert (await of_member(network, member))["active"] is False
    assert len(await network.identity.events("identity.staff-member-deactivated.v1")) == 1
    assert len(await network.identity.events("identity.session-revoked.v1")) >= 1


async def test_an_end_date_can_be_moved_and_taken_back(network: Network) -> None:
    member = await network.add_member()
    path = f"/v1/staff/{member['staff_id']}/end-date"
    await put(network, path, {"ends_at": in_days(network, 1), "reason": REASON})
    await put(network, path, {"ends_at": in_days(network, 3), "reason": REASON})
    network.identity.clock.advance(days=2)
    await network.identity.fire_timers()
    assert (await of_member(network, member))["active"] is True
    assert (await put(network, path, {"ends_at": None, "reason": REASON}))["ends_at"] is None
    network.identity.clock.advance(days=2)
    await network.identity.fire_timers()
    assert (await of_member(network, member))["active"] is True


# -- grants for a time


async def test_a_role_given_for_a_time_goes_by_itself(network: Network) -> None:
    member = await network.add_member(roles=["doctor", "management"])
    path = f"/v1/staff/{member['staff_id']}/roles"
    told = await put(
        network, f"{path}/management/expiry", {"expires_at": in_days(network, 1), "reason": REASON}
    )
    assert [role["role"] for role in told["roles"]] == ["management"]
    network.identity.clock.advance(days=1)
    await network.identity.fire_timers()
    assert (await of_member(network, member))["roles"] == ["doctor"]
    [moved] = await network.identity.events("identity.staff-member-moved.v1")
    assert moved.data["roles"] == ["doctor"]
    assert len(await network.identity.events("identity.session-revoked.v1")) == 1


async def test_only_a_role_that_somebody_has_can_expire(network: Network) -> None:
    member = await network.add_member()
    body = {"expires_at": in_days(network, 1), "reason": REASON}
    answer = await network.put(f"/v1/staff/{member['staff_id']}/roles/biller/expiry", body, version=None)
    assert answer.status_code == 404
    gone = await network.put(f"/v1/staff/{uuid7()}/roles/biller/expiry", body, version=None)
    assert gone.status_code == 404


# -- two people


@pytest.fixture
async def watched(network: Network) -> Network:
    """A network that has a privacy officer, so somebody who can agree."""
    await network.add_member(login="officer@example.org", roles=["privacy-officer"], practitioner=False)
    return network


def position(*roles: str) -> dict[str, Any]:
    return {"roles": list(roles), "network": True}


@pytest.mark.parametrize("role", ["system-administrator", "privacy-officer"])
async def test_nobody_makes_an_administrator_alone(watched: Network, role: str) -> None:
    added = await watched.post("/v1/staff", watched.member(roles=["doctor", role]))
    assert (added.status_code, added.json()["type"]) == (409, "/problems/second-person-needed")
    member = await watched.add_member()
    moved = await watched.post(f"/v1/staff/{member['staff_id']}/move", position("doctor", role))
    assert (moved.status_code, moved.json()["type"]) == (409, "/problems/second-person-needed")


async def ask(network: Network, member: dict[str, Any], role: str = "system-administrator") -> str:
    path = f"/v1/staff/{member['staff_id']}/role-requests"
    answer = await network.post(path, {"role": role, "reason": REASON})
    assert answer.status_code == 201, answer.text
    return f"/v1/users/role-requests/{answer.json()['decision_id']}/decision"


async def test_one_asks_and_another_one_decides(watched: Network) -> None:
    member = await watched.add_member()
    decision = await ask(watched, member)
    assert (await of_member(watched, member))["roles"] == ["doctor"]
    waiting = (await watched.get("/v1/users/role-requests", by=officer(watched))).json()
    assert [one["role"] for one in waiting] == ["system-administrator"]
    answer = await watched.post(decision, {"approve": True}, by=officer(watched))
    assert (answer.status_code, answer.json()["state"]) == (200, "approved")
    assert set((await of_member(watched, member))["roles"]) == {"doctor", "system-administrator"}
    again = await watched.post(decision, {"approve": True}, by=officer(watched))
    assert again.status_code == 409


async def test_neither_who_asked_nor_who_gets_it_decides(watched: Network) -> None:
    member = await watched.add_member()
    decision = await ask(watched, member)
    for same in (watched.admin.subject, UUID(member["staff_id"])):
        answer = await watched.post(decision, {"approve": True}, by=officer(watched, subject=same))
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/self-approval")
    assert (await watched.post(decision, {"approve": True})).status_code == 403
    rejected = await watched.post(decision, {"approve": False}, by=officer(watched))
    assert rejected.json()["state"] == "rejected"
    assert (await of_member(watched, member))["roles"] == ["doctor"]


async def test_a_request_is_off_the_table_after_a_day(watched: Network) -> None:
    decision = await ask(watched, await watched.add_member())
    watched.identity.clock.advance(hours=25)
    assert (await watched.get("/v1/users/role-requests", by=officer(watched))).json() == []
    assert (await watched.post(decision, {"approve": True}, by=officer(watched))).status_code == 409


# -- access reviews


async def staffed(network: Network) -> tuple[str, list[dict[str, Any]]]:
    """Return a department and two who work in it."""
    centre = await network.open_centre()
    department = await network.open_department(centre["centre_id"])
    places = {"centre_ids": [centre["centre_id"]], "department_ids": [department["department_id"]]}
    one = await network.add_member(roles=["doctor", "management"], **places)
    other = await network.add_member(login="other@example.org", **places)
    return str(department["department_id"]), [one, other]


async def open_review(network: Network, department_id: str, days: float = 14) -> dict[str, Any]:
    path = f"/v1/departments/{department_id}/access-reviews"
    answer = await network.post(path, {"due_at": in_days(network, days)}, by=officer(network))
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def decide(
    network: Network, review: dict[str, Any], member: dict[str, Any], role: str, *, certify: bool, **by: Any
) -> Any:
    path = f"/v1/access-reviews/{review['review_id']}/grants/{member['staff_id']}/{role}"
    return await network.post(path, {"certify": certify, "reason": REASON}, by=officer(network, **by))


async def test_what_nobody_certifies_is_gone_at_the_deadline(network: Network) -> None:
    department_id, (one, other) = await staffed(network)
    review = await open_review(network, department_id)
    assert len(review["grants"]) == 3
    assert (await decide(network, review, one, "doctor", certify=True)).status_code == 200
    assert (await decide(network, review, other, "doctor", certify=False)).status_code == 200
    assert (await of_member(network, other))["roles"] == []
    network.identity.clock.advance(days=13)
    await network.identity.fire_timers()
    assert set((await of_member(network, one))["roles"]) == {"doctor", "management"}
    network.identity.clock.advance(days=1)
    await network.identity.fire_timers()
    assert (await of_member(network, one))["roles"] == ["doctor"]
    closed = (await network.get(f"/v1/access-reviews/{review['review_id']}", by=officer(network))).json()
    outcomes = sorted((grant["role"], grant["outcome"]) for grant in closed["grants"])
    assert outcomes == [("doctor", "certified"), ("doctor", "revoked"), ("management", "lapsed")]
    assert closed["closed_at"] is not None
    assert (await network.get("/v1/access-reviews", by=officer(network))).json() == []


async def test_nobody_certifies_themselves_nor_twice(network: Network) -> None:
    department_id, (one, _) = await staffed(network)
    review = await open_review(network, department_id)
    own = await decide(network, review, one, "doctor", certify=True, subject=UUID(one["staff_id"]))
    assert (own.status_code, own.json()["type"]) == (409, "/problems/access-review-own")
    assert (await decide(network, review, one, "doctor", certify=True)).status_code == 200
    again = await decide(network, review, one, "doctor", certify=False)
    assert (again.status_code, again.json()["type"]) == (409, "/problems/access-review-closed")
    assert (await decide(network, review, one, "biller", certify=True)).status_code == 404


async def test_a_department_is_reviewed_once_at_a_time_and_not_in_the_past(network: Network) -> None:
    department_id, _ = await staffed(network)
    await open_review(network, department_id)
    for days, status, problem in ((14, 409, "access-review-open"), (-1, 422, "deadline-is-over")):
        path, body = f"/v1/departments/{department_id}/access-reviews", {"due_at": in_days(network, days)}
        answer = await network.post(path, body, by=officer(network))
        assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{problem}")
    nowhere = f"/v1/departments/{uuid7()}/access-reviews"
    answer = await network.post(nowhere, {"due_at": in_days(network, 14)}, by=officer(network))
    assert answer.status_code == 404


async def test_the_last_administrator_stays_one_whatever_nobody_certified(network: Network) -> None:
    department_id, _ = await staffed(network)
    admin = next(m for m in (await network.get("/v1/staff")).json()["items"] if m["login"] == ADMIN_LOGIN)
    places = {"roles": admin["roles"], "network": True, "department_ids": [department_id]}
    moved = await network.post(f"/v1/staff/{admin['staff_id']}/move", places)
    assert moved.status_code == 200, moved.text
    review = await open_review(network, department_id)
    network.identity.clock.advance(days=15)
    await network.identity.fire_timers()
    closed = (await network.get(f"/v1/access-reviews/{review['review_id']}", by=officer(network))).json()
    assert [g["outcome"] for g in closed["grants"] if g["role"] == "system-administrator"] == ["kept"]
    assert (await of_member(network, admin))["roles"] == ["system-administrator"]


@pytest.mark.parametrize("role", ["system-administrator", "doctor", "management"])
async def test_only_a_privacy_officer_reviews(network: Network, role: str) -> None:
    caller = network.identity.principal(role)
    assert (await network.get("/v1/access-reviews", by=caller)).status_code == 403


# -- logins that nobody uses


async def sweep(network: Network, **later: float) -> None:
    network.identity.clock.advance(**later)
    runtime = network.identity.runtime
    settings = runtime.settings
    assert isinstance(settings, IdentitySettings)
    await sweep_unused(runtime.database, settings)


async def dormant(network: Network) -> list[str]:
    return [event.data["state"] for event in await network.identity.events("identity.account-dormant.v1")]


async def test_a_login_that_nobody_uses_is_told_of_and_closes_a_week_later(network: Network) -> None:
    member = await network.add_member()
    session = await network.session_of(member["login"], member["initial_password"])
    await sweep(network)
    await sweep(network, days=37)
    assert await dormant(network) == []
    await sweep(network, days=1)
    assert await dormant(network) == ["warned", "warned"]  # the administrator's too, who used it as little
    await sweep(network, days=6)
    assert await dormant(network) == ["warned", "warned"]
    await sweep(network, days=1)
    assert await dormant(network) == ["warned", "warned", "closed"]  # the last administrator's stays open
    assert not await is_in(network, session)
    listed = {
        one["account_id"]: one["disabled_at"] for one in (await network.get("/v1/users/dormant")).json()
    }
    assert listed[member["staff_id"]] is not None
    assert (await of_member(network, member))["active"] is True


async def test_using_it_begins_the_count_anew(network: Network) -> None:
    member = await network.add_member()
    await sweep(network)
    await sweep(network, days=40)
    assert (await network.get("/v1/users/dormant")).json() != []
    renewed = (await network.post(f"/v1/staff/{member['staff_id']}/initial-password")).json()
    await network.session_of(member["login"], renewed["initial_password"])
    await sweep(network)
    assert member["staff_id"] not in str((await network.get("/v1/users/dormant")).json())
    await sweep(network, days=30)
    assert "closed" not in await dormant(network)


async def test_a_closed_login_is_opened_again_by_a_person(network: Network) -> None:
    member = await network.add_member()
    early = await network.post(f"/v1/staff/{member['staff_id']}/reopen")
    assert (early.status_code, early.json()["type"]) == (409, "/problems/login-not-dormant")
    for days in (0, 40, 10):
        await sweep(network, days=days)
    assert (await network.log_in(member["login"], member["initial_password"])).status_code == 401
    opened = await network.post(f"/v1/staff/{member['staff_id']}/reopen")
    assert opened.status_code == 200, opened.text
    await network.session_of(member["login"], opened.json()["initial_password"])
    await sweep(network, days=20)
    assert (await network.get("/v1/users/dormant")).json() != []  # the administrator's


async def test_a_clock_that_jumps_closes_a_few_logins_and_not_the_hospital(network: Network) -> None:
    for n in range(9):
        await network.add_member(login=f"somebody-{n}@example.org")
    await sweep(network)
    await sweep(network, days=3650)
    assert "closed" not in await dormant(network)
    await sweep(network, days=8)
    assert (await dormant(network)).count("closed") <= 2
