"""Forgotten passwords: whoever asks learns nothing, the login's owner gets a link, and strangers keep nobody from it."""

from typing import Any

import httpx
from clinic_identity.access_links import RESET_LIFE
from clinic_shared.testing import FixedClock, ServiceHarness
from clinic_shared.timers import timer_table
from sqlalchemy import func, select

from .conftest import Installation, Network
from .factors import enrol_app, ticket_of
from .test_sent_links import accept, send

REQUESTED = "identity.access-link-requested.v1"
CHANGED = "identity.password-changed.v1"
OWN, NEXT = "a passphrase of my own", "another passphrase of mine"
NOBODY = "nobody@example.org"


async def ask(network: Network, login: str, *, address: str = "203.0.113.7") -> httpx.Response:
    headers = {"X-Forwarded-For": address}
    return await network.identity.http.post("/v1/auth/access-links", json={"login": login}, headers=headers)


async def asked_for(network: Network, login: str) -> list[dict[str, Any]]:
    """Ask, let the timers fire, and return all links that notifications was asked to send so far."""
    answer = await ask(network, login)
    assert (answer.status_code, answer.content) == (202, b"")
    await network.identity.fire_timers()
    return [event.data for event in await network.identity.events(REQUESTED)]


async def member_with_password(network: Network) -> dict[str, Any]:
    member = await network.add_member()
    session = await network.session_of(member["login"], member["initial_password"])
    body = {"current_password": member["initial_password"], "new_password": OWN}
    changed = await network.with_token("POST", "/v1/me/password", session["access_token"], body)
    assert changed.status_code == 204, changed.text
    return member


async def written(identity: ServiceHarness) -> tuple[int, int]:
    """Return how many timers and audit records there are."""
    async with identity.runtime.database.transaction() as tx:
        timers = (await tx.execute(select(func.count()).select_from(timer_table))).scalar_one()
    return int(timers), len(await Network(identity, identity.principal()).audit())


async def test_the_owner_gets_a_link_that_replaces_the_password_and_ends_their_sessions(
    network: Network,
) -> None:
    member = await member_with_password(network)
    session = await network.session_of(member["login"], OWN)
    [link] = await asked_for(network, f" {member['login'].upper()} ")
    assert (link["staff_id"], link["purpose"]) == (member["staff_id"], "reset")
    token = await send(network.identity, link["request_id"])
    body = {"token": token, "new_password": NEXT}
    assert (await network.identity.http.post("/v1/auth/access-links/accept", json=body)).status_code == 204
    assert (await network.refresh(session["refresh_token"])).status_code == 401
    assert (await network.log_in(member["login"], OWN)).status_code == 401
    assert (await network.log_in(member["login"], NEXT)).status_code == 200


async def test_a_patient_logs_in_with_a_phone_number_and_gets_theirs(network: Network) -> None:
    patient_id = await network.know_patient()
    registrar = network.identity.principal("registrar")
    login = {"patient_id": str(patient_id), "login": "+70000000001"}
    assert (await network.post("/v1/users/patients", login, by=registrar)).status_code == 201
    [link] = await asked_for(network, "+7 (000) 000-00-01")
    assert (link["patient_id"], link["staff_id"]) == (str(patient_id), None)


async def test_whether_somebody_has_a_login_shows_neither_in_the_answer_nor_in_the_work(
    network: Network,
) -> None:
    member = await member_with_password(network)
    counts, answers = [await written(network.identity)], []
    for login in (member["login"], NOBODY):
        answers.append(await ask(network, login))
        counts.append(await written(network.identity))
    known, unknown = answers
    assert (known.status_code, known.content) == (unknown.status_code, unknown.content)
    assert set(known.headers) == set(unknown.headers)
    before, after_known, after_unknown = counts
    assert [a - b for a, b in zip(after_known, before, strict=True)] == [1, 1]
    assert [a - b for a, b in zip(after_unknown, after_known, strict=True)] == [1, 1]
    assert await network.identity.events(REQUESTED) == []
    await network.identity.fire_timers()
    assert len(await network.identity.events(REQUESTED)) == 1


async def test_asking_is_audited_without_what_was_typed(network: Network) -> None:
    member = await member_with_password(network)
    for login in (member["login"], NOBODY):
        await ask(network, login)
    found = await network.audit(reason="forgotten-password")
    assert [record["entity"]["id"] for record in found] == [member["staff_id"], None]
    assert NOBODY not in str(await network.audit())


async def test_strangers_who_ask_again_neither_void_a_link_nor_send_another(
    network: Network, clock: FixedClock
) -> None:
    member = await member_with_password(network)
    [link] = await asked_for(network, member["login"])
    assert len(await asked_for(network, member["login"])) == 1  # it is under way
    token = await send(network.identity, link["request_id"])
    assert len(await asked_for(network, member["login"])) == 1
    assert (await accept(network.identity, token)).status_code == 204
    assert len(await asked_for(network, member["login"])) == 2
    clock.advance(seconds=RESET_LIFE.total_seconds())
    assert len(await asked_for(network, member["login"])) == 3


async def test_what_no_login_can_hold_is_told_on_the_page(network: Network) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await network.identity.http.post("/welcome", content="login=%00", headers=headers)
    assert answer.status_code == 422, answer.text


async def test_strangers_void_no_link_that_the_desk_handed_over(network: Network) -> None:
    member = await network.add_member()
    made = (await network.post(f"/v1/staff/{member['staff_id']}/access-link")).json()
    assert await asked_for(network, member["login"]) == []
    assert (await accept(network.identity, made["url"].partition("token=")[2])).status_code == 204


async def test_an_address_asks_ten_times_in_five_minutes_and_others_go_on(
    network: Network, clock: FixedClock
) -> None:
    member = await member_with_password(network)
    answers = [await ask(network, f"guess-{n}@example.org") for n in range(10)]
    assert {answer.status_code for answer in answers} == {202}
    for login in (member["login"], NOBODY):
        refused = await ask(network, login)
        assert (refused.status_code, refused.json()["type"]) == (429, "/problems/too-many-attempts")
        assert 0 < int(refused.headers["Retry-After"]) <= 300
    assert (await ask(network, member["login"], address="198.51.100.9")).status_code == 202
    assert (await network.log_in(member["login"], OWN)).status_code == 200
    clock.advance(minutes=5)
    assert (await ask(network, member["login"])).status_code == 202


async def test_who_was_deactivated_meanwhile_gets_none(network: Network) -> None:
    member = await member_with_password(network)
    await ask(network, member["login"])
    gone = await network.post(f"/v1/staff/{member['staff_id']}/deactivate")
    assert gone.status_code == 200, gone.text
    await network.identity.fire_timers()
    assert await network.identity.events(REQUESTED) == []


async def test_the_second_factor_stays_asked_for(network: Network) -> None:
    member = await member_with_password(network)
    session = await network.session_of(member["login"], OWN)
    await enrol_app(network, session["access_token"])
    [link] = await asked_for(network, member["login"])
    body = {"token": await send(network.identity, link["request_id"]), "new_password": NEXT}
    assert (await network.identity.http.post("/v1/auth/access-links/accept", json=body)).status_code == 204
    await ticket_of(network, member["login"], NEXT)


async def test_the_owner_is_told_that_their_password_is_another_one(network: Network) -> None:
    member = await member_with_password(network)
    assert await network.identity.events(CHANGED) == []  # the first one of their own
    [link] = await asked_for(network, member["login"])
    body = {"token": await send(network.identity, link["request_id"]), "new_password": NEXT}
    assert (await network.identity.http.post("/v1/auth/access-links/accept", json=body)).status_code == 204
    session = await network.session_of(member["login"], NEXT)
    body = {"current_password": NEXT, "new_password": OWN}
    assert (
        await network.with_token("POST", "/v1/me/password", session["access_token"], body)
    ).status_code == 204
    told = await network.identity.events(CHANGED)
    assert [(event.data["staff_id"], event.data["patient_id"]) for event in told] == [
        (member["staff_id"], None)
    ] * 2


async def test_the_page_without_a_link_asks_for_the_login(network: Network, clock: FixedClock) -> None:
    member = await member_with_password(network)
    http = network.identity.http
    assert 'name="login"' in (await http.get("/welcome")).text
    pages = [await http.post("/welcome", data={"login": login}) for login in (member["login"], NOBODY)]
    assert [page.status_code for page in pages] == [202, 202]
    assert pages[0].text == pages[1].text
    await network.identity.fire_timers()
    assert len(await network.identity.events(REQUESTED)) == 1
    for _ in range(8):
        await http.post("/welcome", data={"login": NOBODY})
    refused = await http.post("/welcome", data={"login": '"><script>'})
    assert refused.status_code == 429
    assert "<script>" not in refused.text


async def test_the_link_leads_to_the_configured_site_whatever_the_request_says(
    installation: Installation,
) -> None:
    async with installation.start(url="https://clinic.example") as running:
        network = Network(running, running.principal("system-administrator"))
        member = await member_with_password(network)
        evil = {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}
        body = {"login": member["login"]}
        assert (await running.http.post("/v1/auth/access-links", json=body, headers=evil)).status_code == 202
        await running.fire_timers()
        [event] = await running.events(REQUESTED)
        assert event.data["page_url"] == "https://clinic.example/welcome"
