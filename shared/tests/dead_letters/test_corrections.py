"""A corrected copy stands for its original: of both exactly one takes effect, once, and both stay visible."""

import json
from typing import Any
from uuid import UUID

import pytest
from clinic_shared import contracts, held
from clinic_shared.consumer import Disposition, apply
from clinic_shared.dead_letters.corrections import merged
from clinic_shared.envelope import Envelope, encode_body
from clinic_shared.errors import InvalidRequestError
from clinic_shared.held import RawMessage
from clinic_shared.ids import uuid7

from .conftest import CANARY, QUEUE, Office, Person
from .reporting import REGISTERED

pytestmark = pytest.mark.servers

MERGE_PATCHES = [
    # RFC 7396, appendix A
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "foo"}, None, None),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), MERGE_PATCHES)
def test_merge_patches_are_those_of_the_rfc(target: Any, patch: Any, result: Any) -> None:
    assert merged(target, patch) == result


async def park_wrong(office: Office, key: UUID, version: int = 1) -> int:
    """Park an event whose status no contract knows."""
    example = contracts.examples(REGISTERED)[0]
    data = example["data"] | {"patient_id": str(key), "version": version, "status": "lost"}
    return await office.park(key, version, data=data, private=example["private"])


async def correct(steward: Person, letter: int, **patch: Any) -> int:
    answer = await steward.post(
        f"/{letter}/correct",
        {"patch": {"data": patch or {"status": "active"}}, "reason": "the registry erred"},
    )
    assert answer.status_code == 201, answer.text
    return int(answer.json()["copy_id"])


async def test_the_copy_takes_effect_when_it_is_redriven_and_the_original_stays_as_it_came(
    office: Office, admin: Person, steward: Person
) -> None:
    key = uuid7()
    original = await park_wrong(office, key)
    (before,) = await office.rows()
    copy = await correct(steward, original)
    assert await office.effects() == []
    await office.redrive(admin, ids=[copy])
    assert await office.effects() == [(key, 1)]
    (after,) = await office.rows()
    assert (after.body, after.headers, after.event_id) == (before.body, before.headers, before.event_id)
    shown = (await admin.get(f"/{original}")).json()
    assert (shown["state"], shown["superseded_by"]) == ("superseded", copy)
    assert shown["in_inbox_at"] is not None


async def test_the_page_of_each_names_the_other(office: Office, admin: Person, steward: Person) -> None:
    original = await park_wrong(office, uuid7())
    copy = await correct(steward, original)
    pages = [(await admin.get(f"/{letter}")).json() for letter in (original, copy)]
    assert [(page["superseded_by"], page["corrects"]) for page in pages] == [(copy, None), (None, original)]
    assert [page["schema_check"]["matches"] for page in pages] == [False, True]
    assert pages[0]["event_id"] != pages[1]["event_id"]
    assert pages[1]["headers"]["correctionof"] == pages[0]["event_id"]


async def test_the_original_can_no_longer_take_effect_beside_its_copy(
    office: Office, admin: Person, steward: Person
) -> None:
    """Delivered once more, and by now readable to the consumer, it is a duplicate."""
    key = uuid7()
    original = await park_wrong(office, key)
    (row,) = await office.rows()
    await office.redrive(admin, ids=[await correct(steward, original)])
    assert (
        await apply(office.runtime, Envelope.from_headers(row.headers), await office.said(row))
        is Disposition.DUPLICATE
    )
    assert (await admin.post("/redrive", {"ids": [original], "discarded": True})).status_code == 409
    assert await office.effects() == [(key, 1)]


async def test_the_copy_is_a_duplicate_when_the_original_took_effect_meanwhile(
    office: Office, admin: Person, steward: Person
) -> None:
    key = uuid7()
    original = await park_wrong(office, key)
    (row,) = await office.rows()
    copy = await correct(steward, original)
    assert (
        await apply(office.runtime, Envelope.from_headers(row.headers), await office.said(row))
        is Disposition.APPLIED
    )
    run = await office.redrive(admin, ids=[copy])
    assert (run["duplicate"], await office.effects()) == (1, [(key, 1)])


async def test_what_took_effect_is_not_corrected(office: Office, steward: Person) -> None:
    letter = await park_wrong(office, uuid7())
    (row,) = await office.rows()
    await apply(office.runtime, Envelope.from_headers(row.headers), await office.said(row))
    refused = await steward.post(f"/{letter}/correct", {"patch": {}, "reason": "too late"})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/already-applied")


async def test_the_copy_stands_where_its_original_stood_in_the_order_of_the_key(
    office: Office, admin: Person, steward: Person
) -> None:
    key = uuid7()
    first = await park_wrong(office, key, 1)
    second = await office.park(key, 2)
    copy = await correct(steward, first)
    await office.redrive(admin, ids=[second, copy])
    assert await office.effects() == [(key, 1), (key, 2)]


async def test_a_copy_that_fails_can_be_corrected_again(
    office: Office, admin: Person, steward: Person
) -> None:
    key, other = uuid7(), uuid7()
    office.behaviour.fail(key, InvalidRequestError("never"))
    copy = await correct(steward, await park_wrong(office, key))
    assert (await office.redrive(admin, ids=[copy]))["failed"] == 1
    better = await correct(steward, copy, patient_id=str(other))
    await office.redrive(admin, ids=[better])
    assert await office.effects() == [(other, 1)]
    states = [(await admin.get(f"/{letter}")).json()["state"] for letter in (1, copy)]
    assert states == ["superseded", "superseded"]


async def test_discarding_the_copy_gives_the_original_back(
    office: Office, admin: Person, steward: Person
) -> None:
    original = await park_wrong(office, uuid7())
    copy = await correct(steward, original)
    (await admin.post(f"/{copy}/discard", {"reason": "wrong again"})).raise_for_status()
    shown = (await admin.get(f"/{original}")).json()
    assert (shown["state"], shown["superseded_by"]) == ("parked", None)


async def test_an_event_with_a_copy_is_accounted_for_once(
    office: Office, admin: Person, steward: Person
) -> None:
    """Kept until the copy took effect, applied after that; the copy is no event of its own."""
    kept = "SELECT count(*) AS events FROM held WHERE root_event_id IS NULL AND settled_at IS NULL"
    applied = "SELECT coalesce(sum(events), 0) AS events FROM tally_delta WHERE direction = 'applied'"
    copy = await correct(steward, await park_wrong(office, uuid7()))
    assert [(await office.query(one))[0].events for one in (kept, applied)] == [1, 0]
    await office.redrive(admin, ids=[copy])
    assert [(await office.query(one))[0].events for one in (kept, applied)] == [0, 1]


async def test_what_breaks_the_contract_is_refused_by_pointer_without_values(
    office: Office, steward: Person
) -> None:
    letter = await park_wrong(office, uuid7())
    refused = await steward.post(
        f"/{letter}/correct", {"patch": {"data": {"status": CANARY}}, "reason": "a bad idea"}
    )
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/contract-refuses")
    assert any(problem.startswith("/data/status") for problem in refused.json()["problems"])
    assert CANARY not in refused.text
    assert len(await office.rows()) == 1


async def test_a_number_beyond_what_is_sent_is_refused(office: Office, steward: Person) -> None:
    letter = await park_wrong(office, uuid7())
    refused = await steward.post(
        f"/{letter}/correct", {"patch": {"data": {"version": 10**30}}, "reason": "a bad idea"}
    )
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/contract-refuses")


async def test_an_unreadable_message_is_corrected_as_a_whole(
    office: Office, admin: Person, steward: Person
) -> None:
    key = uuid7()
    letter = await office.park(key, body=b"\xff not json")
    refused = await steward.post(f"/{letter}/correct", {"patch": {}, "reason": "no way"})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/unreadable-content")
    data = contracts.examples(REGISTERED)[0]["data"] | {"patient_id": str(key), "version": 1}
    answer = await steward.post(
        f"/{letter}/correct", {"body": {"data": data}, "reason": "written anew after a call"}
    )
    await office.redrive(admin, ids=[answer.json()["copy_id"]])
    assert await office.effects() == [(key, 1)]


async def test_the_audit_record_has_hashes_and_no_content(office: Office, steward: Person) -> None:
    letter = await park_wrong(office, uuid7())
    await correct(steward, letter)
    (record,) = await office.audited("correct")
    assert {"sha256_before", "sha256_after", "copy"} <= record["details"].keys()
    assert record["details"]["sha256_before"] != record["details"]["sha256_after"]
    private = contracts.examples(REGISTERED)[0]["private"]
    assert private["name"]["family"] not in json.dumps(record, ensure_ascii=False)


async def test_who_redrives_may_not_correct_and_who_corrects_may_not_redrive(
    office: Office, admin: Person, steward: Person
) -> None:
    letter = await park_wrong(office, uuid7())
    assert (await admin.post(f"/{letter}/correct", {"patch": {}, "reason": "none"})).status_code == 403
    assert (await steward.post("/redrive", {"ids": [letter]})).status_code == 403


async def test_a_later_delivery_of_the_original_is_kept_once(office: Office, steward: Person) -> None:
    letter = await park_wrong(office, uuid7())
    (row,) = await office.rows()
    await correct(steward, letter)
    async with office.runtime.database.transaction() as tx:
        message = RawMessage(queue=QUEUE, headers=row.headers, body=encode_body({}, None))
        await held.park(tx, message, cause="again", error="Again")
    assert len(await office.rows()) == 2
