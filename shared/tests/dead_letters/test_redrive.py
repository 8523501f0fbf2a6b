"""A redrive run handles messages again: each once, in order, at its rate, here and nowhere else."""

import asyncio
from typing import Any

import pytest
from clinic_shared import contracts, inbox
from clinic_shared.database import Transaction
from clinic_shared.dead_letters.retention import forget_old
from clinic_shared.dead_letters.run_worker import RedriveWorker
from clinic_shared.envelope import Envelope
from clinic_shared.errors import InvalidRequestError
from clinic_shared.events import Event, Origin
from clinic_shared.ids import uuid7
from clinic_shared.testing import eventually
from sqlalchemy import text

from .conftest import Office, Person
from .reporting import REGISTERED

pytestmark = pytest.mark.servers


async def test_all_of_a_cause_take_effect_in_order_per_key_and_no_others(
    office: Office, admin: Person
) -> None:
    first, second = uuid7(), uuid7()
    for key, version in ((first, 1), (second, 1), (first, 2), (second, 2), (first, 3)):
        await office.park(key, version)
    await office.park(cause="other")
    run = await office.redrive(admin, cause="planted", expected_count=5)
    effects = await office.effects()
    assert [version for key, version in effects if key == first] == [1, 2, 3]
    assert [version for key, version in effects if key == second] == [1, 2]
    assert (run["state"], run["total"], run["applied"]) == ("finished", 5, 5)
    assert [row.cause for row in await office.rows()] == ["other"]


async def test_a_run_says_what_became_of_each_message(office: Office, admin: Person) -> None:
    good, bad, known = uuid7(), uuid7(), uuid7()
    office.behaviour.fail(bad, InvalidRequestError("never"), version=1)
    ids = [
        await office.park(good),
        await office.park(bad, 1),
        await office.park(bad, 2),
        await office.park(known),
    ]
    async with office.runtime.database.transaction() as tx:
        known_id = (await office.rows())[3].event_id
        await inbox.claim(tx, consumer="reporting", event_id=known_id, event_type=REGISTERED)
    run = await office.redrive(admin, ids=ids)
    page = (await admin.get(f"/runs/{run['run_id']}")).json()
    assert [(item["state"], item["error"]) for item in page["items"]] == [
        ("applied", None),
        ("failed", "InvalidRequestError invalid-request"),
        ("skipped", "EarlierFailed"),
        ("duplicate", None),
    ]
    assert [run[name] for name in ("applied", "duplicate", "failed", "skipped", "waiting")] == [1, 1, 1, 1, 0]
    assert await office.effects() == [(good, 1)]
    assert [(row.state, row.run_id) for row in await office.rows()] == [("parked", None), ("parked", None)]


async def test_what_failed_keeps_the_history_of_its_attempts(office: Office, admin: Person) -> None:
    key = uuid7()
    office.behaviour.fail(key, InvalidRequestError("never"))
    letter = await office.park(key)
    run = await office.redrive(admin, ids=[letter])
    page = (await admin.get(f"/{letter}")).json()
    assert [(one["outcome"], one["error"], one["run_id"]) for one in page["attempts"]] == [
        ("failed", "PlantedError here", None),
        ("failed", "InvalidRequestError invalid-request", run["run_id"]),
    ]
    assert all(one["duration_ms"] is not None and one["release"] for one in page["attempts"])
    assert (page["attempt"], page["runs"], page["cause"] != "planted") == (2, [run["run_id"]], True)


async def test_a_message_that_took_effect_says_so_when_asked_for(office: Office, admin: Person) -> None:
    letter = await office.park()
    run = await office.redrive(admin, ids=[letter])
    gone = await admin.get(f"/{letter}")
    assert gone.status_code == 404
    assert "took effect" in gone.json()["detail"]
    assert gone.json()["run_id"] == run["run_id"]


async def test_the_origin_stays_what_it_was(office: Office, admin: Person) -> None:
    letters = [await office.park(origin=origin) for origin in Origin]
    await office.redrive(admin, ids=letters)
    origins = [row.origin for row in await office.query("SELECT origin FROM effect ORDER BY id")]
    assert origins == [origin.value for origin in Origin]


async def test_nothing_is_published_again(office: Office, admin: Person) -> None:
    await office.redrive(admin, ids=[await office.park()])
    assert await office.query("SELECT 1 FROM outbox") == []


async def test_each_message_of_a_run_is_audited_with_who_asked(office: Office, admin: Person) -> None:
    letters = [await office.park(), await office.park()]
    run = await office.redrive(admin, ids=letters, reason="the release is fixed")
    records = await office.audited("redrive")
    assert [record["entity"]["id"] for record in records] == [str(letter) for letter in letters]
    assert {record["agent"]["who"] for record in records} == {str(admin.subject)}
    assert {record["details"]["run"] for record in records} == {run["run_id"]}


async def test_what_waits_for_its_turn_holds_up_nothing_of_its_key(office: Office, admin: Person) -> None:
    key = uuid7()
    letter = await office.park(key)
    (await admin.post("/redrive", {"ids": [letter]})).raise_for_status()
    assert [row.state for row in await office.rows()] == ["parked"]


async def test_a_held_message_can_be_tried_now_but_not_before_earlier_ones_of_its_key(
    office: Office, admin: Person
) -> None:
    key = uuid7()
    first, second = await office.park(key, 1, is_held=True), await office.park(key, 2, is_held=True)
    run = await office.redrive(admin, ids=[second])
    assert (run["skipped"], await office.effects()) == (1, [])
    run = await office.redrive(admin, ids=[second, first])
    assert (run["applied"], await office.effects()) == (2, [(key, 1), (key, 2)])


async def test_a_held_message_that_fails_in_a_run_goes_on_by_its_schedule(
    office: Office, admin: Person
) -> None:
    key = uuid7()
    office.behaviour.fail(key, RuntimeError("for now"))
    await office.redrive(admin, ids=[await office.park(key, is_held=True)])
    (row,) = await office.rows()
    assert (row.state, row.attempt, row.run_id) == ("held", 2, None)
    assert row.next_attempt_at > office.clock.now()


async def test_a_discarded_message_can_be_taken_back_but_not_by_accident(
    office: Office, admin: Person
) -> None:
    key = uuid7()
    letter = await office.park(key)
    (await admin.post(f"/{letter}/discard", {"reason": "a mistake"})).raise_for_status()
    refused = await admin.post("/redrive", {"ids": [letter]})
    assert (refused.status_code, refused.json()["discarded"]) == (409, [letter])
    await office.redrive(admin, ids=[letter], discarded=True)
    assert await office.effects() == [(key, 1)]


@pytest.mark.parametrize("changed", ["fewer", "more"])
async def test_a_cause_that_is_no_longer_what_was_seen_is_refused_as_a_whole(
    office: Office, admin: Person, changed: str
) -> None:
    letters = [await office.park() for _ in range(3)]
    (group,) = await admin.groups()
    if changed == "fewer":
        (await admin.post(f"/{letters[0]}/discard", {"reason": "meanwhile"})).raise_for_status()
    else:
        await office.park()
    seen = {"cause": group["cause"], "expected_count": group["selectable"]}
    refused = await admin.post("/redrive", seen)
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/selection-changed")
    assert refused.json()["expected"] == 3
    assert await office.query("SELECT 1 FROM redrive_run") == []


async def test_what_joined_a_cause_after_it_was_seen_stays_out_of_the_run(
    office: Office, admin: Person
) -> None:
    await office.park()
    (group,) = await admin.groups()
    late = await office.park()
    run = await office.redrive(
        admin, cause="planted", expected_count=group["selectable"], up_to_id=group["last_id"]
    )
    assert run["applied"] == 1
    assert [row.id for row in await office.rows()] == [late]


async def test_a_message_is_in_one_run_at_a_time(office: Office, admin: Person) -> None:
    letter = await office.park()
    (await admin.post("/redrive", {"ids": [letter]})).raise_for_status()
    again = await admin.post("/redrive", {"ids": [letter, 999]})
    assert again.status_code == 409
    assert (again.json()["redriving"], again.json()["gone"]) == ([letter], [999])


async def test_a_cancelled_run_leaves_the_rest_as_it_was(office: Office, admin: Person) -> None:
    keys = [uuid7() for _ in range(4)]
    letters = [await office.park(key) for key in keys]
    run_id = (await admin.post("/redrive", {"ids": letters})).json()["run_id"]
    assert await RedriveWorker(office.runtime).step()
    cancelled = (await admin.post(f"/runs/{run_id}/cancel")).raise_for_status().json()
    assert [cancelled[name] for name in ("state", "applied", "cancelled", "waiting")] == [
        "cancelled",
        1,
        3,
        0,
    ]
    assert await office.effects() == [(keys[0], 1)]
    assert [(row.state, row.run_id) for row in await office.rows()] == [("parked", None)] * 3
    assert not await RedriveWorker(office.runtime).step()
    assert (await admin.post(f"/runs/{run_id}/cancel")).status_code == 409


async def test_the_message_in_hand_is_finished_when_its_run_is_cancelled(
    office: Office, admin: Person
) -> None:
    in_hand, go_on = asyncio.Event(), asyncio.Event()

    async def wait(tx: Transaction, envelope: Envelope) -> None:
        in_hand.set()
        await go_on.wait()

    office.behaviour.before = wait
    letters = [await office.park(), await office.park()]
    run_id = (await admin.post("/redrive", {"ids": letters})).json()["run_id"]
    async with office.working():
        await in_hand.wait()
        cancelled = (await admin.post(f"/runs/{run_id}/cancel")).raise_for_status().json()
        assert (cancelled["state"], cancelled["waiting"], cancelled["cancelled"]) == ("cancelled", 1, 1)
        go_on.set()
        await eventually(lambda: _applied(office, 1))
    run = (await admin.get(f"/runs/{run_id}")).json()["run"]
    assert (run["applied"], run["cancelled"], run["waiting"]) == (1, 1, 0)


async def _applied(office: Office, count: int) -> bool:
    return len(await office.effects()) == count


async def test_two_workers_share_runs_without_overtaking_within_one(office: Office, admin: Person) -> None:
    key = uuid7()
    letters = [await office.park(key, version) for version in range(1, 31)]
    run_id = (await admin.post("/redrive", {"ids": letters, "rate_per_second": 1000})).json()["run_id"]
    async with office.working(), office.working():
        run = await office.finish(admin, run_id)
    assert run["applied"] == 30
    assert await office.effects() == [(key, version) for version in range(1, 31)]


async def test_a_runs_rate_is_kept(office: Office, admin: Person) -> None:
    """By the database's clock: the next turn is a second away, so a second step finds nothing to do."""
    letters = [await office.park(), await office.park()]
    (await admin.post("/redrive", {"ids": letters, "rate_per_second": 1})).raise_for_status()
    worker = RedriveWorker(office.runtime)
    assert [await worker.step(), await worker.step()] == [True, False]
    (away,) = await office.query(
        "SELECT next_item_at > clock_timestamp() + interval '0.5 s' AS far FROM redrive_run"
    )
    assert away.far


async def test_two_people_who_redrive_and_discard_the_same_at_once_decide_each_message_once(
    office: Office,
) -> None:
    """In many rounds: one decision is taken, the other refused as a whole."""
    people = [await office.person("system-administrator") for _ in range(2)]

    async def decide(pair: list[int], round_number: int) -> set[int]:
        bodies: list[tuple[str, dict[str, Any]]] = [
            ("/redrive", {"ids": pair}),
            ("/discard", {"ids": list(reversed(pair)), "reason": "at once"}),
        ]
        if round_number % 2:
            bodies.reverse()
        answers = await asyncio.gather(
            *(person.post(*body) for person, body in zip(people, bodies, strict=True))
        )
        return {answer.status_code for answer in answers}

    pairs = [[await office.park(), await office.park()] for _ in range(12)]
    statuses = [await decide(pair, number) for number, pair in enumerate(pairs)]
    assert all(409 in found and len(found) == 2 for found in statuses), statuses
    decided = await office.audited("redrive") + await office.audited("discard")
    ids = [record["entity"]["id"] for record in decided]
    assert sorted(ids) == sorted(str(letter) for pair in pairs for letter in pair)


ASKING: dict[str, tuple[str, dict[str, Any]]] = {
    "nothing named": ("/redrive", {}),
    "ids and a cause": ("/redrive", {"ids": [1], "cause": "planted", "expected_count": 1}),
    "a cause without a count": ("/redrive", {"cause": "planted"}),
    "no rate": ("/redrive", {"ids": [1], "rate_per_second": 0}),
    "no reason": ("/discard", {"ids": [1]}),
}


@pytest.mark.parametrize("what", ASKING)
async def test_a_selection_that_says_too_little_is_refused(admin: Person, what: str) -> None:
    path, body = ASKING[what]
    assert (await admin.post(path, body)).status_code == 422


async def test_a_dry_run_tells_what_a_run_would_do_and_changes_nothing(office: Office, admin: Person) -> None:
    good, bad, known = uuid7(), uuid7(), uuid7()
    office.behaviour.fail(bad, InvalidRequestError("never"), version=1)
    for key, version in ((good, 1), (bad, 1), (bad, 2), (known, 1)):
        await office.park(key, version)
    async with office.runtime.database.transaction() as tx:
        known_id = (await office.rows())[3].event_id
        await inbox.claim(tx, consumer="reporting", event_id=known_id, event_type=REGISTERED)
    before = await office.rows(), await office.query("SELECT * FROM inbox")
    tried = (await admin.post("/dry-run", {"cause": "planted"})).raise_for_status().json()
    assert [one["outcome"] for one in tried["outcomes"]] == ["applied", "failed", "skipped", "duplicate"]
    assert tried["outcomes"][1]["error"] == "InvalidRequestError invalid-request"
    assert (tried["would_succeed"], tried["left"]) == (False, 0)
    assert (await office.rows(), await office.query("SELECT * FROM inbox")) == before
    assert await office.effects() == []


async def test_a_dry_run_lets_later_messages_of_a_key_see_the_earlier_ones(
    office: Office, admin: Person
) -> None:
    """A message that needs what an earlier one brings would succeed after it."""
    key = uuid7()
    seen: list[tuple[int, int]] = []

    async def look(tx: Transaction, envelope: Envelope) -> None:
        count = (await tx.fetch_all(text("SELECT count(*) FROM effect")))[0][0]
        seen.append((envelope.aggregate_version, count))

    office.behaviour.before = look
    letters = [await office.park(key, version) for version in (1, 2)]
    await admin.post("/dry-run", {"ids": letters})
    assert seen == [(1, 0), (2, 1)]
    assert await office.effects() == []


async def test_a_dry_run_of_many_is_told_in_parts(
    office: Office, admin: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clinic_shared.dead_letters.rehearsal.LARGEST", 2)
    for _ in range(3):
        await office.park()
    first = (await admin.post("/dry-run", {"cause": "planted"})).json()
    rest = (await admin.post("/dry-run", {"cause": "planted", "after_id": first["last_id"]})).json()
    assert [(len(part["outcomes"]), part["left"]) for part in (first, rest)] == [(2, 1), (1, 0)]


async def test_a_dry_run_emits_nothing(office: Office, admin: Person) -> None:
    """What a handler emits, audits and schedules goes with the transaction that is rolled back."""

    async def emit(tx: Transaction, envelope: Envelope) -> None:
        example = contracts.examples(REGISTERED)[0]
        tx.emit(Event(type=REGISTERED, subject=envelope.subject, aggregate_version=1, data=example["data"]))

    office.behaviour.before = emit
    letter = await office.park()
    assert (await admin.post(f"/{letter}/dry-run")).json()["would_succeed"] is True
    assert await office.query("SELECT 1 FROM outbox UNION ALL SELECT 1 FROM event") == []
    await office.redrive(admin, ids=[letter])
    assert len(await office.query("SELECT 1 FROM event")) == 1


async def test_the_past_is_kept_for_ninety_days_and_of_what_waits_for_ever(
    office: Office, admin: Person
) -> None:
    gone, waits = await office.park(), await office.park()
    run = await office.redrive(admin, ids=[gone])
    office.clock.advance(days=91)
    async with office.runtime.database.transaction() as tx:
        await forget_old(tx)
    assert (await admin.get(f"/runs/{run['run_id']}")).status_code == 404
    assert len((await admin.get(f"/{waits}")).json()["attempts"]) == 1
    assert len(await office.query("SELECT 1 FROM held_attempt")) == 1
