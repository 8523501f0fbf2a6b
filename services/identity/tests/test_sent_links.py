"""Links that reach their owners by message: the secret is made by notifications, identity knows its digest."""

import hashlib
import secrets
from typing import Any

import httpx
from clinic_shared.testing import FixedClock, ServiceHarness

from .conftest import Installation, Network

ATTEMPTED = "notifications.access-link-attempted.v1"
PASSWORD = "a passphrase of my own"
SENT = {"deliver": "message"}


async def ask(network: Network, staff_id: str) -> dict[str, Any]:
    answer = await network.post(f"/v1/staff/{staff_id}/access-link", SENT)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def send(identity: ServiceHarness, request_id: str, *, version: int = 3) -> str:
    """Do as notifications does when a message with a link leaves; return the link's secret."""
    token = "al_" + secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).hexdigest()
    await identity.deliver_example(ATTEMPTED, request_id=request_id, version=version, digest=digest)
    return token


async def accept(identity: ServiceHarness, token: str) -> httpx.Response:
    body = {"token": token, "new_password": PASSWORD}
    return await identity.http.post("/v1/auth/access-links/accept", json=body)


async def test_a_link_that_is_sent_is_shown_to_nobody_and_works_once(network: Network) -> None:
    member = await network.add_member()
    asked = await ask(network, member["staff_id"])
    assert asked["url"] is None
    [event] = await network.identity.events("identity.access-link-requested.v1")
    assert event.data["staff_id"] == member["staff_id"]
    assert event.data["purpose"] == "invitation"
    assert "al_" not in str(event.data) + str(event.private)
    first = await send(network.identity, asked["request_id"])
    again = await send(network.identity, asked["request_id"], version=5)
    assert (await accept(network.identity, again)).status_code == 204
    assert [(await accept(network.identity, token)).status_code for token in (first, again)] == [410, 410]
    assert (await network.log_in(member["login"], PASSWORD)).status_code == 200


async def test_a_patient_s_link_goes_to_the_patient(network: Network) -> None:
    patient_id = await network.know_patient()
    registrar = network.identity.principal("registrar")
    login = {"patient_id": str(patient_id), "login": "anna.testova@example.org"}
    assert (await network.post("/v1/users/patients", login, by=registrar)).status_code == 201
    path = f"/v1/users/patients/{patient_id}/access-link"
    asked = (await network.post(path, SENT, by=registrar)).json()
    [event] = await network.identity.events("identity.access-link-requested.v1")
    assert (event.data["patient_id"], event.data["staff_id"]) == (str(patient_id), None)
    assert event.patient_id == patient_id
    assert (await network.get(path, by=registrar)).json()["request_id"] == asked["request_id"]


async def test_whoever_asked_sees_how_far_it_got(network: Network) -> None:
    member = await network.add_member()
    path = f"/v1/staff/{member['staff_id']}/access-link"
    assert (await network.get(path)).status_code == 404
    asked = await ask(network, member["staff_id"])
    assert (await network.get(path)).json()["state"] == "requested"
    token = await send(network.identity, asked["request_id"], version=3)
    undeliverable = {"state": "undeliverable", "failure_code": "no-address", "digest": None}
    for version, expected in ((2, "sending"), (4, "undeliverable")):
        await network.identity.deliver_example(
            ATTEMPTED, request_id=asked["request_id"], version=version, **undeliverable
        )
        assert (await network.get(path)).json()["state"] == expected
    assert (await network.get(path)).json()["failure_code"] == "no-address"
    assert (await accept(network.identity, token)).status_code == 204
    assert (await network.get(path)).status_code == 404


async def test_nothing_works_that_nobody_asked_for_or_that_was_replaced(
    network: Network, clock: FixedClock
) -> None:
    member = await network.add_member()
    older = await ask(network, member["staff_id"])
    sent = await send(network.identity, older["request_id"])
    newer = await ask(network, member["staff_id"])
    late = await send(network.identity, older["request_id"], version=5)
    stray = await send(network.identity, member["staff_id"])
    assert [(await accept(network.identity, t)).status_code for t in (sent, late, stray)] == [410] * 3
    clock.advance(hours=72)
    expired = await send(network.identity, newer["request_id"])
    assert (await accept(network.identity, expired)).status_code == 410


async def test_a_link_that_is_handed_over_replaces_one_that_is_sent(network: Network) -> None:
    member = await network.add_member()
    asked = await ask(network, member["staff_id"])
    made = (await network.post(f"/v1/staff/{member['staff_id']}/access-link", {})).json()
    late = await send(network.identity, asked["request_id"])
    assert (await accept(network.identity, late)).status_code == 410
    assert (await accept(network.identity, made["url"].partition("token=")[2])).status_code == 204


async def test_where_links_are_only_sent_nobody_is_shown_one(installation: Installation) -> None:
    async with installation.start(hand_over_links=False) as running:
        network = Network(running, running.principal("system-administrator"))
        member = await network.add_member()
        path = f"/v1/staff/{member['staff_id']}/access-link"
        assert (await network.post(path)).json()["url"] is None
        refused = await network.post(path, {"deliver": "hand-over"})
        assert (refused.status_code, refused.json()["type"].rpartition("/")[2]) == (409, "links-are-sent")
