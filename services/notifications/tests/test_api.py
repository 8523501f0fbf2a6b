"""Who may see and change what, and what clients are told when they may not."""

from typing import Any
from uuid import UUID

import pytest
from clinic_notifications.domain import Purpose
from clinic_shared.events import audit_outbox
from clinic_shared.ids import uuid7
from clinic_shared.testing import ServiceHarness, eventually

from .conftest import PHONE, Clinic

SOMEBODY = UUID("01900000-0000-7000-8000-a00000000009")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/messages"),
        ("GET", f"/v1/messages/{SOMEBODY}"),
        ("GET", f"/v1/messages/preferences/{SOMEBODY}"),
        ("PUT", f"/v1/messages/preferences/{SOMEBODY}"),
        ("GET", "/v1/templates"),
        ("PUT", "/v1/templates"),
        ("GET", "/v1/dev/inbox"),
    ],
)
async def test_without_a_token_or_the_scope_there_is_no_answer(
    notifications: ServiceHarness, method: str, path: str
) -> None:
    assert (await notifications.http.request(method, path)).status_code == 401
    biller = notifications.headers(notifications.principal("biller"))
    refused = await notifications.http.request(method, path, headers=biller)
    assert refused.status_code == 403
    assert refused.headers["content-type"] == "application/problem+json"


async def test_a_message_tells_what_became_of_it(clinic: Clinic) -> None:
    appointment_id = await clinic.book()
    await clinic.send_due()
    await clinic.callbacks_done()
    [message] = await clinic.messages(purpose="appointment-confirmation")
    assert message["about_id"] == str(appointment_id)
    assert (message["status"], message["channel"], message["language"]) == ("read", "whatsapp", "ru")
    assert "10:00" in message["text"]
    assert PHONE not in str(message)
    again = await clinic.get(f"/v1/messages/{message['message_id']}")
    assert again.json() == message
    assert (await clinic.get(f"/v1/messages/{uuid7()}")).status_code == 404


async def test_messages_to_come_are_in_the_list(clinic: Clinic) -> None:
    await clinic.book()
    planned = await clinic.messages(patient_id=str(clinic.patient_id), status="planned")
    assert [(m["purpose"], m["channel"]) for m in planned] == [("appointment-reminder", None)] * 2
    assert (await clinic.get(f"/v1/messages/{planned[0]['message_id']}")).json() == planned[0]
    assert await clinic.messages(status="planned", purpose="invoice") == []


async def test_the_list_comes_in_pages(clinic: Clinic) -> None:
    for _ in range(3):
        await clinic.book()
    everything = [m["message_id"] for m in await clinic.messages()]
    seen: list[str] = []
    query: dict[str, str] = {"limit": "4"}
    while True:
        page = (await clinic.get("/v1/messages", **query)).json()
        seen += [item["message_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == everything
    assert len(seen) == 9


async def test_a_patient_sees_only_their_own(clinic: Clinic) -> None:
    await clinic.book()
    [confirmation, *_] = await clinic.messages()
    http, headers = clinic.notifications.http, clinic.notifications.headers
    owner = headers(clinic.notifications.principal("patient", patient_id=clinic.patient_id))
    stranger = headers(clinic.notifications.principal("patient", patient_id=uuid7()))
    query = {"patient_id": str(clinic.patient_id)}
    assert len((await http.get("/v1/messages", headers=owner)).json()["items"]) == 3
    assert (await http.get("/v1/messages", headers=stranger, params=query)).json()["items"] == []
    for kind in (confirmation, (await clinic.messages(status="planned"))[0]):
        path = f"/v1/messages/{kind['message_id']}"
        assert (await http.get(path, headers=owner)).status_code == 200
        assert (await http.get(path, headers=stranger)).status_code == 404


async def test_staff_see_what_goes_out_in_the_name_of_their_places(clinic: Clinic) -> None:
    await clinic.book()
    http, headers = clinic.notifications.http, clinic.notifications.headers

    def registrar_of(department_id: UUID) -> dict[str, str]:
        return headers(
            clinic.notifications.principal(
                "registrar", network=False, department_ids=frozenset({department_id})
            )
        )

    here, elsewhere = registrar_of(clinic.department_id), registrar_of(uuid7())
    assert len((await http.get("/v1/messages", headers=here)).json()["items"]) == 3
    assert (await http.get("/v1/messages", headers=elsewhere)).json()["items"] == []
    path = f"/v1/messages/{(await clinic.messages())[0]['message_id']}"
    assert (await http.get(path, headers=elsewhere)).status_code == 404


# -- preferences


async def put_preferences(clinic: Clinic, body: dict[str, Any], **headers: str) -> Any:
    caller = clinic.notifications.principal("registrar")
    return await clinic.notifications.http.put(
        f"/v1/messages/preferences/{clinic.patient_id}",
        json=body,
        headers=clinic.notifications.headers(caller) | headers,
    )


async def test_a_patient_s_order_of_channels_counts(clinic: Clinic) -> None:
    path = f"/v1/messages/preferences/{clinic.patient_id}"
    assert (await clinic.get(path)).json()["version"] == 0
    answer = await put_preferences(clinic, {"channels": ["email", "sms"]})
    assert answer.json()["version"] == 1
    await clinic.book()
    await clinic.send_due()
    assert [m["channel"] for m in await clinic.inbox()] == ["email"]


async def test_an_opt_out_counts_for_what_is_queued_already(clinic: Clinic) -> None:
    await clinic.book()
    chosen = {"channels": ["whatsapp"], "opted_out": ["appointment-confirmation"]}
    assert (await put_preferences(clinic, chosen)).status_code == 200
    await clinic.send_due()
    assert await clinic.inbox() == []
    [failed] = await clinic.messages(status="failed")
    assert failed["failure_code"] == "opted-out"


async def test_preferences_change_only_as_they_were_seen(clinic: Clinic) -> None:
    chosen = {"channels": ["sms"]}
    assert (await put_preferences(clinic, chosen, **{"If-Match": '"0"'})).status_code == 200
    assert (await put_preferences(clinic, chosen, **{"If-Match": '"7"'})).status_code == 412


async def test_preferences_of_a_stranger_or_with_unknown_codes_are_refused(clinic: Clinic) -> None:
    stranger = clinic.notifications.principal("patient", patient_id=uuid7())
    path = f"/v1/messages/preferences/{clinic.patient_id}"
    headers = clinic.notifications.headers(stranger)
    assert (await clinic.notifications.http.get(path, headers=headers)).status_code == 404
    refused = await clinic.notifications.http.put(path, json={"channels": []}, headers=headers)
    assert refused.status_code == 404
    assert (await put_preferences(clinic, {"channels": ["pigeon"]})).status_code == 422


async def test_a_desk_keeps_the_choices_of_those_who_are_registered_or_expected_there(clinic: Clinic) -> None:
    patient_id = uuid7()
    registered_at, theirs = uuid7(), uuid7()
    await clinic.notifications.deliver_example(
        "patients.patient-registered.v1", patient_id=str(patient_id), centre_id=str(registered_at)
    )
    await clinic.notifications.deliver_example(
        "identity.department-opened.v1", department_id=str(theirs), centre_id=str(registered_at)
    )

    async def statuses(**places: Any) -> set[int]:
        caller = clinic.notifications.principal("registrar", network=False, **places)
        path = f"/v1/messages/preferences/{patient_id}"
        headers = clinic.notifications.headers(caller)
        http, chosen = clinic.notifications.http, {"channels": ["sms"]}
        read = await http.get(path, headers=headers)
        return {read.status_code, (await http.put(path, json=chosen, headers=headers)).status_code}

    here = {"department_ids": frozenset({clinic.department_id})}
    assert await statuses(centre_ids=frozenset({registered_at})) == {200}
    assert await statuses(department_ids=frozenset({theirs})) == {200}
    assert await statuses(**here) == {404}
    await clinic.book(patient_id=patient_id)
    assert await statuses(**here) == {200}
    clinic.notifications.clock.advance(days=93)
    assert await statuses(**here) == {404}


async def test_a_patient_who_isn_t_known_here_yet_may_be_soon(clinic: Clinic) -> None:
    answer = await clinic.get(f"/v1/messages/preferences/{uuid7()}")
    assert answer.status_code == 409
    assert answer.json()["type"].endswith("/reference-not-yet-known")
    assert answer.headers["retry-after"] == "1"


# -- templates


def wording(**changes: Any) -> dict[str, Any]:
    body = {
        "code": "appointment-confirmation",
        "language": "ru",
        "channel": "whatsapp",
        "body": "{{ department }} ждёт вас {{ date }} в {{ time }}",
        "vendor_name": "dermatology_confirmation",
    }
    return body | changes


async def put_template(clinic: Clinic, body: dict[str, Any], **headers: str) -> Any:
    caller = clinic.notifications.principal("system-administrator")
    return await clinic.notifications.http.put(
        "/v1/templates", json=body, headers=clinic.notifications.headers(caller) | headers
    )


async def test_every_purpose_has_wording_in_both_languages_on_each_of_its_channels(clinic: Clinic) -> None:
    listed = (await clinic.get("/v1/templates")).json()
    on_every_channel = set(Purpose) - {Purpose.SIGN_IN_CODE}
    expected = {
        (purpose, language, channel)
        for purpose in on_every_channel
        for language in ("en", "ru")
        for channel in ("email", "sms", "whatsapp")
    } | {(Purpose.SIGN_IN_CODE, language, "sms") for language in ("en", "ru")}
    assert {(t["code"], t["language"], t["channel"]) for t in listed} == expected
    assert len(listed) == len(expected)
    assert {t["version"] for t in listed} == {1}


async def test_a_department_s_own_wording_comes_before_the_network_s(clinic: Clinic) -> None:
    made = await put_template(clinic, wording(department_id=str(clinic.department_id)))
    assert (made.status_code, made.json()["version"]) == (200, 1)
    await clinic.book()
    await clinic.send_due()
    [received] = await clinic.inbox()
    assert received["template"] == "dermatology_confirmation"
    assert received["text"] == "Дерматология | 4 марта 2026 | 10:00"


async def test_a_message_is_in_the_patient_s_language_or_the_centre_s(clinic: Clinic) -> None:
    english = await clinic.register(language="en")
    other = await clinic.register(language="kk")
    await clinic.book(patient_id=english)
    await clinic.book(patient_id=other)
    await clinic.send_due()
    languages = {m["patient_id"]: m["language"] for m in await clinic.messages() if m["language"]}
    assert languages == {str(english): "en", str(other): "ru"}


async def test_a_wording_changes_only_as_it_was_seen(clinic: Clinic) -> None:
    assert (await put_template(clinic, wording())).status_code == 428
    assert (await put_template(clinic, wording(), **{"If-Match": '"2"'})).status_code == 412
    changed = await put_template(clinic, wording(), **{"If-Match": '"1"'})
    assert (changed.status_code, changed.json()["version"]) == (200, 2)
    listed = await clinic.get(
        "/v1/templates", code="appointment-confirmation", language="ru", channel="whatsapp"
    )
    assert [t["version"] for t in listed.json()] == [2]


async def test_what_can_t_be_rendered_is_refused(clinic: Clinic) -> None:
    answer = await put_template(clinic, wording(body="{{ diagnosis }}"), **{"If-Match": '"1"'})
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("/template-invalid")
    assert "service" in answer.json()["fields"]
    assert (await put_template(clinic, wording(subject="x"))).status_code == 422
    assert (await put_template(clinic, wording(vendor_name=None))).status_code == 422


async def test_a_department_s_administrator_changes_no_one_else_s_wording(clinic: Clinic) -> None:
    local = clinic.notifications.principal(
        "system-administrator", network=False, department_ids=frozenset({clinic.department_id})
    )
    http, headers = clinic.notifications.http, clinic.notifications.headers(local)
    for body, expected in (
        (wording(), 403),
        (wording(department_id=str(uuid7())), 403),
        (wording(department_id=str(clinic.department_id)), 200),
    ):
        assert (await http.put("/v1/templates", json=body, headers=headers)).status_code == expected


# -- development


async def test_the_development_inbox_shows_what_the_fakes_received(clinic: Clinic) -> None:
    await clinic.book()
    await clinic.send_due()
    answer = await clinic.get("/v1/dev/inbox", channel="whatsapp", to=PHONE)
    assert [item["to"] for item in answer.json()["items"]] == [PHONE]
    assert (await clinic.get("/v1/dev/inbox", channel="sms")).json() == {"items": [], "total": 0}
    patient = clinic.notifications.principal("patient", patient_id=clinic.patient_id)
    refused = await clinic.notifications.http.get(
        "/v1/dev/inbox", headers=clinic.notifications.headers(patient)
    )
    assert refused.status_code == 403


async def test_where_the_vendors_are_real_there_is_no_development_inbox(
    notifications: ServiceHarness,
) -> None:
    caller = notifications.headers(notifications.principal("registrar"))
    assert (await notifications.http.get("/v1/dev/inbox", headers=caller)).status_code == 404


async def test_reading_is_audited(clinic: Clinic) -> None:
    async def reads() -> int:
        records = await clinic.rows(audit_outbox)
        return sum(b'"action":"R"' in row["record"] for row in records)

    before = await reads()
    await clinic.messages(patient_id=str(clinic.patient_id))
    assert await eventually(reads) == before + 1
