"""Laboratories as the clinic configures them."""

from typing import Any

import pytest
from clinic_shared.ids import uuid7

from .conftest import Laboratory

ADMIN = "system-administrator"


async def configure(lab: Laboratory, body: dict[str, Any], *roles: str, **headers: str) -> Any:
    return await lab.lab.http.put(
        f"/v1/lab/partners/{lab.partner_id}", json=body, headers=lab.headers(*(roles or (ADMIN,))) | headers
    )


async def test_a_laboratory_is_there_with_defaults_before_anybody_configures_it(lab: Laboratory) -> None:
    [partner] = (await lab.get("/v1/lab/partners", ADMIN))["items"]
    assert (partner["partner_id"], partner["version"], partner["enabled"]) == (str(lab.partner_id), 0, True)
    assert "secret_digests" not in partner


async def test_a_configuration_replaces_the_one_before(lab: Laboratory) -> None:
    body = {
        "time_zone": "Asia/Omsk",
        "default_charset": "WINDOWS-1251",
        "identifier_authorities": [{"sent": "A", "known_as": "B"}],
        "default_department_id": str(lab.department_id),
    }
    first = await configure(lab, body)
    assert (first.status_code, first.json()["version"], first.headers["etag"]) == (200, 1, '"1"')
    second = (await configure(lab, {})).json()
    assert (second["version"], second["time_zone"], second["identifier_authorities"]) == (2, None, [])


async def test_a_change_of_what_nobody_has_seen_is_refused(lab: Laboratory) -> None:
    assert (await configure(lab, {}, **{"If-Match": '"0"'})).status_code == 200
    assert (await configure(lab, {}, **{"If-Match": '"0"'})).status_code == 412


async def test_one_laboratory_shows_what_it_sent(lab: Laboratory, compose) -> None:
    path = f"/v1/lab/partners/{lab.partner_id}"
    assert (await lab.get(path, ADMIN))["last_message_id"] is None
    await lab.send(compose())
    last = await lab.send(compose(msh={10: "M-2"}))
    found = await lab.get(path, "doctor")
    assert (found["last_message_id"], found["groups"]) == (last, {"parked": 2})


@pytest.mark.parametrize(
    "body",
    [
        {"time_zone": "Moscow"},
        {"default_charset": "KLINGON"},
        {"unknown": 1},
        {"critical_acknowledge_seconds": 1},
        {"identifier_authorities": [{"sent": "A"}]},
    ],
)
async def test_what_is_no_configuration_is_refused(lab: Laboratory, body) -> None:
    assert (await configure(lab, body)).status_code == 422


async def test_references_that_may_still_arrive(lab: Laboratory) -> None:
    assert (await configure(lab, {"default_department_id": str(uuid7())})).status_code == 409
    lab.partner_id = uuid7()
    assert (await configure(lab, {})).status_code == 409
    missing = await lab.lab.http.get(f"/v1/lab/partners/{uuid7()}", headers=lab.headers(ADMIN))
    assert missing.status_code == 404


async def test_only_administrators_configure(lab: Laboratory) -> None:
    assert (await configure(lab, {}, "doctor")).status_code == 403
    assert (await configure(lab, {}, "lab")).status_code == 403
    assert (await lab.lab.http.put(f"/v1/lab/partners/{lab.partner_id}", json={})).status_code == 401
    assert (await lab.lab.http.get("/v1/lab/partners", headers=lab.headers("registrar"))).status_code == 403
