"""What an operator sees of messages that wait: everything that explains them, nothing of a patient."""

from typing import Any

import pytest
from clinic_shared import contracts
from clinic_shared.consumer import apply
from clinic_shared.envelope import PREFIX, Envelope
from clinic_shared.ids import uuid7

from .conftest import CANARY, LETTERS, QUEUE, Office, Person
from .reporting import REGISTERED

pytestmark = pytest.mark.servers

MASK = "•••"
LATIN_CANARY = "Testova-Canary"


async def test_messages_are_grouped_by_cause_with_counts_times_and_an_example(
    office: Office, admin: Person
) -> None:
    first = await office.park()
    office.clock.advance(hours=1)
    await office.park(is_held=True)
    last = await office.park()
    await office.park(cause="other")
    (await admin.post(f"/{last}/discard", {"reason": "not needed"})).raise_for_status()
    group, other = sorted(await admin.groups(), key=lambda one: one["cause"], reverse=True)
    assert [group[name] for name in ("cause", "type", "queue", "count")] == ["planted", REGISTERED, QUEUE, 3]
    assert [group[name] for name in ("held", "parked", "discarded", "selectable")] == [1, 1, 1, 1]
    assert (group["example_id"], group["last_id"]) == (first, last)
    assert group["first_seen_at"] < group["last_seen_at"]
    assert other["count"] == 1


async def test_lists_are_filtered_by_what_an_operator_knows(office: Office, admin: Person) -> None:
    key = uuid7()
    await office.park(key)
    office.clock.advance(hours=1)
    later = office.clock.now().isoformat()
    await office.park(cause="other", is_held=True)
    await office.park(event_type="patients.patient-updated.v1")
    for chosen, ids in (
        ({"cause": "other"}, [2]),
        ({"state": "held"}, [2]),
        ({"type": REGISTERED}, [1, 2]),
        ({"queue": QUEUE}, [1, 2, 3]),
        ({"queue": "elsewhere"}, []),
        ({"key": str(key)}, [1]),
        ({"since": later}, [2, 3]),
        ({"until": later}, [1]),
    ):
        answer = (await admin.get(**chosen)).raise_for_status().json()
        assert [item["id"] for item in answer["items"]] == ids, chosen
        assert sum(group["count"] for group in answer["groups"]) == len(ids), chosen


async def test_a_page_shows_neighbours_of_the_key_in_their_order(office: Office, admin: Person) -> None:
    key = uuid7()
    ids = [await office.park(key, version) for version in (1, 2, 3)]
    await office.park()
    page = (await admin.get(f"/{ids[1]}")).json()
    assert [[one["id"] for one in page[side]] for side in ("before", "after")] == [[ids[0]], [ids[2]]]
    assert page["headers"]["aggregateversion"] == 2
    assert page["headers"]["subject"] == str(key)


async def test_a_page_says_that_the_message_had_taken_effect(office: Office, admin: Person) -> None:
    letter = await office.park()
    assert (await admin.get(f"/{letter}")).json()["in_inbox_at"] is None
    (row,) = await office.rows()
    await apply(office.runtime, Envelope.from_headers(row.headers), await office.said(row))
    assert (await admin.get(f"/{letter}")).json()["in_inbox_at"] is not None


def _canary_cases() -> dict[str, dict[str, Any]]:
    example = contracts.examples(REGISTERED)[0]["data"]
    return {
        "in the private part": {"private": {"name": {"family": CANARY}}},
        "under a private name nobody declared": {"private": {CANARY: "x"}},
        "in a field of another type": {"data": example | {"version": CANARY}},
        "in a field nobody declared": {"data": example | {"note": CANARY}},
        "as a field's name": {"data": example | {CANARY: 1}},
        "in bytes that are no event": {"body": f'"{CANARY}"'.encode()},
        "in an event nobody declared": {"event_type": "patients.unheard-of.v1", "data": {"name": CANARY}},
        "in a header": {"headers": {PREFIX + "source": CANARY}},
        "in the type": {"headers": {PREFIX + "type": CANARY}},
        "in Latin letters": {
            "headers": {PREFIX + "source": LATIN_CANARY, PREFIX + "traceparent": LATIN_CANARY}
        },
        "in a header's name": {"headers": {PREFIX + LATIN_CANARY: "x"}},
    }


@pytest.mark.parametrize("case", _canary_cases())
async def test_nothing_that_may_be_about_a_patient_is_on_the_page(
    office: Office, admin: Person, case: str
) -> None:
    letter = await office.park(**_canary_cases()[case])
    page = await admin.get(f"/{letter}")
    assert page.status_code == 200
    for text in (page.text, (await admin.get()).text):
        assert CANARY not in text
        assert LATIN_CANARY not in text


async def test_what_the_contract_promises_is_shown_and_what_breaks_it_is_named(
    office: Office, admin: Person
) -> None:
    key = uuid7()
    example = contracts.examples(REGISTERED)[0]
    data = example["data"] | {"patient_id": str(key), "status": "lost", "note": "x"}
    page = (await admin.get(f"/{await office.park(key, data=data, private=example['private'])}")).json()
    assert page["payload"]["data"]["patient_id"] == str(key)
    assert page["payload"]["data"]["status"] == MASK
    assert page["payload"]["undeclared"] == 1
    assert page["payload"]["private_fields"] == sorted(example["private"])
    assert page["schema_check"]["matches"] is False
    assert sorted(page["schema_check"]["problems"]) == [
        "/data/* (additionalProperties)",
        "/data/status (enum)",
    ]


async def test_content_is_revealed_for_a_reason_to_who_may_and_stands_in_the_patients_access_log(
    office: Office, admin: Person, steward: Person
) -> None:
    key = uuid7()
    letter = await office.park(key, private={"name": {"family": CANARY}})
    assert (await admin.post(f"/{letter}/reveal", {"reason": "curious"})).status_code == 403
    assert (await steward.post(f"/{letter}/reveal", {})).status_code == 422
    revealed = await steward.post(f"/{letter}/reveal", {"reason": "why it fails"})
    assert revealed.json()["private"] == {"name": {"family": CANARY}}
    assert revealed.headers["cache-control"] == "no-store"
    (record,) = await office.audited("reveal")
    assert (record["patient"], record["reason"]) == (str(key), "why it fails")
    assert record["agent"]["who"] == str(steward.subject)
    assert CANARY not in str(record)
    assert await office.query("SELECT 1 FROM idempotency_key WHERE body IS NOT NULL") == []


async def test_bytes_that_are_no_event_are_revealed_as_text(office: Office, steward: Person) -> None:
    letter = await office.park(body=b"\xffMSH|^~")
    revealed = (await steward.post(f"/{letter}/reveal", {"reason": "what is it"})).json()
    assert revealed == {"data": None, "private": None, "text": "\ufffdMSH|^~"}


SCOPES = {
    ("GET", ""): "ops.read",
    ("GET", "/1"): "ops.read",
    ("GET", "/runs"): "ops.read",
    ("GET", "/decisions"): "ops.read",
    ("POST", "/dry-run"): "ops.redrive",
    ("POST", "/redrive"): "ops.redrive",
    ("POST", "/discard"): "ops.redrive",
    ("POST", "/1/redrive"): "ops.redrive",
    ("POST", "/1/dry-run"): "ops.redrive",
    ("POST", "/1/discard"): "ops.redrive",
    ("POST", "/1/reveal"): "ops.reveal",
    ("POST", "/1/correct"): "ops.correct",
}


async def test_each_operation_asks_for_its_own_permission_and_denials_are_audited(
    office: Office, subtests: pytest.Subtests
) -> None:
    everything = {"ops.read", "ops.redrive", "ops.reveal", "ops.correct", "ops.approve"}
    for (method, path), scope in SCOPES.items():
        with subtests.test(f"{method} {path}"):
            person = await office.person(scopes=sorted(everything - {scope}))
            answer = await person.http.request(method, LETTERS + path, json={} if method == "POST" else None)
            assert (answer.status_code, answer.json()["permission"]) == (403, scope)
    denials = await office.query("SELECT 1 FROM audit_outbox")
    assert len(denials) == len(SCOPES)


@pytest.mark.parametrize("number", [0, -1, 2**63, "one"])
async def test_a_number_that_cannot_be_anybodys_is_refused(admin: Person, number: object) -> None:
    assert (await admin.get(f"/{number}")).status_code == 422
    assert (await admin.post("/redrive", {"ids": [number]})).status_code == 422
    assert (await admin.post("/dry-run", {"cause": "planted", "up_to_id": number})).status_code == 422


@pytest.mark.parametrize("path", ["/999", "/runs/0199aaaa-0000-7000-8000-000000000000"])
async def test_what_never_was_is_not_found(admin: Person, path: str) -> None:
    answer = await admin.get(path)
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")
