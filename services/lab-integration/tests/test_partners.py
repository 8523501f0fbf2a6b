"""Laboratories as the clinic configures them."""

from typing import Any

import pytest
from clinic_lab_integration.partners import PartnerDirectory
from clinic_shared.ids import uuid7

from .conftest import Laboratory, msa

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
    assert (found["groups_in_24_hours"], found["error_rate"], found["lag_seconds"]) == ({"parked": 2}, 1.0, 0)


async def test_it_shows_how_much_goes_wrong_today_and_what_waits(lab: Laboratory, compose) -> None:
    path = f"/v1/lab/partners/{lab.partner_id}"
    await lab.post(compose(msh={9: "ADT^A01"}))
    await lab.process()
    lab.lab.clock.advance(days=2)
    assert (await lab.get(path, ADMIN))["error_rate"] is None
    await lab.add_patient()
    await lab.send(compose())
    lab.lab.clock.advance(seconds=30)
    found = await lab.get(path, ADMIN)
    assert (found["error_rate"], found["lag_seconds"]) == (0.0, 30.0)
    assert found["groups"] == {"rejected": 1, "in-flight": 1}


async def test_how_it_is_connected_is_configured(lab: Laboratory) -> None:
    body = {
        "protocols": ["mllp", "fhir"],
        "ack_mode": "original",
        "messages_per_second": 20,
        "test_mode": True,
        "mllp_peers": ["192.0.2.7", "2001:db8::/32"],
        "mllp_certificate_names": ["lab.example.org"],
        "callback_url": "https://lab.example.org/rejections",
    }
    configured = (await configure(lab, body)).json()
    kept = await lab.get(f"/v1/lab/partners/{lab.partner_id}", ADMIN)
    for found in (configured, kept):
        assert {name: found[name] for name in body} == body | {
            "protocols": ["fhir", "mllp"],
            "mllp_peers": ["192.0.2.7/32", "2001:db8::/32"],
        }


@pytest.mark.parametrize(("mode", "code"), [("original", "AA"), ("enhanced", "CA"), ("by-message", None)])
async def test_what_was_agreed_about_acknowledgements_beats_the_message(
    lab: Laboratory, compose, mode, code
) -> None:
    await configure(lab, {"ack_mode": mode})
    await lab.lab.runtime.get(PartnerDirectory).refresh()
    answer = await lab.post(compose(msh={15: "NE", 16: "NE"}))
    assert answer.content == b"" if code is None else msa(answer)[1] == code


async def test_who_sends_faster_than_agreed_is_told_to_come_again(lab: Laboratory, compose) -> None:
    await configure(lab, {"messages_per_second": 0.001})
    await lab.lab.runtime.get(PartnerDirectory).refresh()
    answers = [await lab.post(compose(msh={10: f"M-{number}"})) for number in range(3)]
    assert [answer.status_code for answer in answers] == [200, 503, 503]
    assert (msa(answers[2])[1], answers[2].headers["retry-after"]) == ("AE", "5")
    assert (await lab.dispositions())["answered"] == 1


async def test_only_the_ways_that_were_agreed_are_open(lab: Laboratory, compose) -> None:
    await configure(lab, {"protocols": ["mllp"]})
    await lab.lab.runtime.get(PartnerDirectory).refresh()
    answer = await lab.post(compose())
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/protocol-not-agreed")


@pytest.mark.parametrize(
    "body",
    [
        {"time_zone": "Moscow"},
        {"default_charset": "KLINGON"},
        {"unknown": 1},
        {"critical_acknowledge_seconds": 1},
        {"protocols": ["fax"]},
        {"ack_mode": "sometimes"},
        {"messages_per_second": 0},
        {"mllp_peers": ["lab.example.org"]},
        {"mllp_peers": ["192.0.2.7/24"]},
        {"callback_url": "ftp://lab.example.org"},
        {"callback_url": "https://user@lab.example.org"},
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
