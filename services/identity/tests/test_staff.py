"""The people who work here, what they may do, and how fast that ends."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from clinic_shared import contracts
from clinic_shared.auth import TokenVerifier
from clinic_shared.ids import uuid7
from clinic_shared.testing import ISSUER

from .conftest import Network
from .test_login import claims_in


async def principal_in(network: Network, token: str, clock: Any) -> Any:
    jwks = network.identity.signer.public_jwks()
    return await TokenVerifier.static(jwks, issuer=ISSUER, clock=clock).verify(token)


async def test_a_doctor_is_added_logs_in_and_has_a_doctors_rights_where_they_work(
    network: Network, clock: Any
) -> None:
    centre = await network.open_centre()
    department = await network.open_department(centre["centre_id"])
    places = {"centre_ids": [centre["centre_id"]], "department_ids": [department["department_id"]]}
    member = await network.add_member(**places)
    session = await network.session_of(member["login"], member["initial_password"])
    principal = await principal_in(network, session["access_token"], clock)
    assert str(principal.subject) == member["staff_id"]
    assert principal.scopes == set(contracts.scopes_by_role()["doctor"])
    assert [str(c) for c in principal.centre_ids] == places["centre_ids"]
    assert [str(d) for d in principal.department_ids] == places["department_ids"]
    assert principal.network is False


async def test_others_hear_of_new_staff_without_their_login(network: Network) -> None:
    member = await network.add_member()
    events = await network.identity.events("identity.staff-member-added.v1")
    assert [event.data["roles"] for event in events] == [["system-administrator"], ["doctor"]]
    assert str(events[1].subject) == member["staff_id"]
    assert events[1].private["name"] == {"family": "Vracheva", "given": "Testina", "patronymic": None}
    assert member["login"] not in str(events[1].data) + str(events[1].private)


async def test_the_initial_password_is_shown_once_and_kept_nowhere(network: Network) -> None:
    member = await network.add_member()
    read = await network.get(f"/v1/staff/{member['staff_id']}")
    assert read.json() == {k: v for k, v in member.items() if not k.startswith("initial_password")}
    async with network.identity.runtime.database.transaction() as tx:
        for table in ("account", "staff", "event", "audit_outbox", "idempotency_key"):
            dump = await tx.connection.exec_driver_sql(f"SELECT {table}::text FROM {table}")  # noqa: S608
            assert member["initial_password"] not in str(dump.all())


async def test_of_many_with_one_login_one_is_added(network: Network) -> None:
    logins = ["testina@example.org", "Testina@Example.org", " testina@example.org"]
    answers = await asyncio.gather(
        *(network.post("/v1/staff", network.member(login=login)) for login in logins)
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409]
    assert {a.json()["type"] for a in answers if a.status_code == 409} == {"/problems/login-taken"}


async def test_a_position_that_does_not_exist_is_refused(network: Network) -> None:
    for changes in (
        {"roles": ["doctor", "wizard"]},
        {"roles": ["patient"]},
        {"roles": ["lab"]},
        {"centre_ids": [str(uuid7())]},
        {"department_ids": [str(uuid7())]},
    ):
        answer = await network.post("/v1/staff", network.member(**changes))
        assert (answer.status_code, answer.json()["reference"]) == (422, next(iter(changes)))


async def test_nobody_starts_in_a_department_that_is_closed(network: Network) -> None:
    centre = await network.open_centre()
    department = await network.open_department(centre["centre_id"])
    await network.post(f"/v1/departments/{department['department_id']}/close")
    answer = await network.post("/v1/staff", network.member(department_ids=[department["department_id"]]))
    assert (answer.status_code, answer.json()["reference"]) == (422, "department_ids")


async def test_a_member_who_makes_no_sense_is_refused(network: Network) -> None:
    senseless: tuple[dict[str, Any], ...] = (
        {"login": "testina"},
        {"login": "+70000000001"},
        {"roles": []},
        {"name": {}},
        {"surprise": 1},
    )
    for changes in senseless:
        answer = await network.post("/v1/staff", network.member(**changes))
        assert answer.status_code == 422, changes


async def test_an_administrator_of_one_centre_manages_its_staff_only(network: Network) -> None:
    own = await network.open_centre()
    other = await network.open_centre(code="other", legal_entity={"name": "Other Test Clinic"})
    local = network.identity.principal(
        "system-administrator", network=False, centre_ids=frozenset([UUID(own["centre_id"])])
    )
    elsewhere = network.member(centre_ids=[other["centre_id"]])
    everywhere = network.member(network=True)
    for body in (elsewhere, everywhere):
        assert (await network.post("/v1/staff", body, by=local)).status_code == 403
    here = await network.post("/v1/staff", network.member(centre_ids=[own["centre_id"]]), by=local)
    assert here.status_code == 201
    stranger = await network.add_member(login="other@example.org", centre_ids=[other["centre_id"]])
    path = f"/v1/staff/{stranger['staff_id']}/deactivate"
    assert (await network.post(path, by=local)).status_code == 403


async def test_who_moves_keeps_their_session_but_not_their_old_rights(network: Network, clock: Any) -> None:
    member = await network.add_member()
    session = await network.session_of(member["login"], member["initial_password"])
    clock.advance(microseconds=500)
    moved = await network.post(
        f"/v1/staff/{member['staff_id']}/move", {"roles": ["registrar"], "practitioner": False}
    )
    assert (moved.status_code, moved.json()["version"]) == (200, 2)
    [event] = await network.identity.events("identity.session-revoked.v1")
    assert (event.data["session_id"], event.data["reason_code"]) == (None, "rights-changed")
    fresh = (await network.refresh(session["refresh_token"])).json()
    old = await principal_in(network, session["access_token"], clock)
    new = await principal_in(network, fresh["access_token"], clock)
    assert (old.roles, new.roles) == ({"doctor"}, {"registrar"})
    assert new.scopes == set(contracts.scopes_by_role()["registrar"])
    # The boundary is a whole second: old tokens are before it, and new ones, even this quick, are not.
    boundary = datetime.fromisoformat(event.data["issued_before"])
    assert issued_at(session["access_token"]) < boundary.timestamp() <= issued_at(fresh["access_token"])


def issued_at(token: str) -> int:
    return int(claims_in(token)["iat"])


async def test_whoever_leaves_is_out_at_once(network: Network, clock: Any) -> None:
    member = await network.add_member()
    sessions = [await network.session_of(member["login"], member["initial_password"]) for _ in range(2)]
    gone = await network.post(f"/v1/staff/{member['staff_id']}/deactivate")
    assert (gone.status_code, gone.json()["active"]) == (200, False)
    for session in sessions:
        assert (await network.refresh(session["refresh_token"])).status_code == 401
    revoked = await network.identity.events("identity.session-revoked.v1")
    assert {event.data["session_id"] for event in revoked} == {s["session_id"] for s in sessions}
    assert {event.data["principal_id"] for event in revoked} == {member["staff_id"]}
    assert all(
        datetime.fromisoformat(event.data["expires_at"]) == clock.now() + timedelta(seconds=310)
        for event in revoked
    )
    [event] = await network.identity.events("identity.staff-member-deactivated.v1")
    assert (event.data["active"], event.data["version"]) == (False, 2)


async def test_a_login_while_somebody_is_deactivated_leaves_no_open_session(network: Network) -> None:
    member = await network.add_member()
    outcomes = await asyncio.gather(
        *(network.log_in(member["login"], member["initial_password"]) for _ in range(4)),
        network.post(f"/v1/staff/{member['staff_id']}/deactivate"),
    )
    assert outcomes[-1].status_code == 200
    for answer in outcomes[:-1]:
        if answer.status_code == 200:
            assert (await network.refresh(answer.json()["refresh_token"])).status_code == 401


async def test_leaving_is_final_and_nobody_deactivates_themselves(network: Network) -> None:
    member = await network.add_member()
    path = f"/v1/staff/{member['staff_id']}"
    assert (await network.post(f"{path}/deactivate")).status_code == 200
    for action, body in (
        ("deactivate", {}),
        ("move", {"roles": ["doctor"]}),
        ("initial-password", {}),
    ):
        answer = await network.post(f"{path}/{action}", body)
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/deactivated")
    admin = await network.add_member(login="second-admin@example.org", roles=["system-administrator"])
    themselves = network.identity.principal("system-administrator", subject=UUID(admin["staff_id"]))
    own = await network.post(f"/v1/staff/{admin['staff_id']}/deactivate", by=themselves)
    assert own.status_code == 403


async def test_staff_are_listed_by_place(network: Network) -> None:
    centre = await network.open_centre()
    department = await network.open_department(centre["centre_id"])
    here = await network.add_member(
        centre_ids=[centre["centre_id"]], department_ids=[department["department_id"]]
    )
    await network.add_member(login="elsewhere@example.org")
    for query in (f"centre_id={centre['centre_id']}", f"department_id={department['department_id']}"):
        listed = (await network.get(f"/v1/staff?{query}")).json()["items"]
        assert [(m["staff_id"], m["login"]) for m in listed] == [(here["staff_id"], here["login"])]
    everybody = (await network.get("/v1/staff")).json()["items"]
    assert len(everybody) == 3
    for path in (f"/v1/staff/{uuid7()}",):
        assert (await network.get(path)).status_code == 404
    for action in ("move", "deactivate"):
        body = {"roles": ["doctor"]} if action == "move" else {}
        assert (await network.post(f"/v1/staff/{uuid7()}/{action}", body)).status_code == 404


async def test_an_old_version_is_not_changed(network: Network) -> None:
    member = await network.add_member()
    headers = network.identity.headers(network.admin) | {"If-Match": '"9"'}
    answer = await network.identity.http.post(
        f"/v1/staff/{member['staff_id']}/move", json={"roles": ["doctor"]}, headers=headers
    )
    assert answer.status_code == 412
