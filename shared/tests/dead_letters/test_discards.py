"""Letting messages be takes a reason, and above a limit (two in these tests) a second person."""

import asyncio

import pytest

from .conftest import Office, Person

pytestmark = pytest.mark.servers


@pytest.fixture
def discarded_alone() -> int:
    return 2


async def ask(office: Office, person: Person, count: int = 3) -> str:
    """Park messages and ask to discard them all; returns the decision's id."""
    letters = [await office.park() for _ in range(count)]
    answer = (
        (await person.post("/discard", {"ids": letters, "reason": "a bad import"})).raise_for_status().json()
    )
    assert answer["count"] == 0
    return str(answer["decision_id"])


async def states(office: Office) -> list[str]:
    return [row.state for row in await office.rows()]


async def test_few_are_discarded_at_once_with_the_reason(office: Office, admin: Person) -> None:
    letters = [await office.park(), await office.park()]
    decided = (await admin.post("/discard", {"ids": letters, "reason": "sent by mistake"})).json()
    assert decided == {"count": 2, "decision_id": None}
    rows = await office.rows()
    assert [(row.state, row.reason, row.decided_by) for row in rows] == [
        ("discarded", "sent by mistake", admin.subject)
    ] * 2
    assert {record["reason"] for record in await office.audited("discard")} == {"sent by mistake"}


async def test_many_in_small_portions_are_many(office: Office, admin: Person) -> None:
    answers = [
        (await admin.post(f"/{await office.park()}/discard", {"reason": "one by one"})).json()
        for _ in range(3)
    ]
    assert [answer["count"] for answer in answers] == [1, 1, 0]
    assert answers[2]["decision_id"] is not None
    office.clock.advance(hours=24)
    later = await admin.post(f"/{await office.park()}/discard", {"reason": "another day"})
    assert later.json()["count"] == 1


async def test_who_agreed_may_still_discard_alone(office: Office, admin: Person) -> None:
    second = await office.person("system-administrator")
    decision = await ask(office, admin)
    (await second.post(f"/decisions/{decision}/approve")).raise_for_status()
    alone = await second.post(f"/{await office.park()}/discard", {"reason": "one of my own"})
    assert alone.json()["count"] == 1


async def test_many_wait_for_a_second_person_and_are_seen_meanwhile(office: Office, admin: Person) -> None:
    decision = await ask(office, admin)
    assert await states(office) == ["parked"] * 3
    listed = (await admin.get()).json()["decisions"]
    assert [(one["decision_id"], one["state"], one["count"]) for one in listed] == [(decision, "pending", 3)]


async def test_somebody_else_agrees_and_both_stand_in_the_audit_log(office: Office, admin: Person) -> None:
    second = await office.person("data-steward")
    decision = await ask(office, admin)
    approved = (await second.post(f"/decisions/{decision}/approve")).raise_for_status().json()
    assert approved["count"] == 3
    assert await states(office) == ["discarded"] * 3
    records = await office.audited("discard")
    assert {(record["agent"]["who"], record["details"]["requested_by"]) for record in records} == {
        (str(second.subject), str(admin.subject))
    }


async def test_nobody_approves_their_own_request(office: Office, admin: Person) -> None:
    decision = await ask(office, admin)
    refused = await admin.post(f"/decisions/{decision}/approve")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/self-approval")
    assert await states(office) == ["parked"] * 3


async def test_a_request_is_refused_or_withdrawn_with_a_reason(office: Office, admin: Person) -> None:
    decision = await ask(office, admin)
    (await admin.post(f"/decisions/{decision}/reject", {"reason": "on second thoughts"})).raise_for_status()
    (listed,) = (await admin.get("/decisions")).json()
    assert (listed["state"], listed["decision_reason"]) == ("rejected", "on second thoughts")
    second = await office.person("system-administrator")
    assert (await second.post(f"/decisions/{decision}/approve")).status_code == 409
    assert await states(office) == ["parked"] * 3


async def test_a_request_expires(office: Office, admin: Person) -> None:
    decision = await ask(office, admin)
    office.clock.advance(hours=24)
    second = await office.person("system-administrator")
    late = await second.post(f"/decisions/{decision}/approve")
    assert (late.status_code, late.json()["detail"]) == (409, "It is expired.")
    assert (await second.get()).json()["decisions"] == []
    assert [one["state"] for one in (await second.get("/decisions")).json()] == ["expired"]


async def test_what_changed_since_it_was_asked_is_not_discarded_in_part(
    office: Office, admin: Person
) -> None:
    decision = await ask(office, admin)
    await office.redrive(admin, ids=[1])
    second = await office.person("system-administrator")
    stale = await second.post(f"/decisions/{decision}/approve")
    assert (stale.status_code, stale.json()["gone"]) == (409, [1])
    assert await states(office) == ["parked"] * 2


async def test_two_who_approve_and_reject_at_once_decide_once(office: Office, admin: Person) -> None:
    decision = await ask(office, admin)
    others = [await office.person("system-administrator") for _ in range(4)]
    answers = await asyncio.gather(
        *(person.post(f"/decisions/{decision}/approve") for person in others[:2]),
        *(person.post(f"/decisions/{decision}/reject", {"reason": "never"}) for person in others[2:]),
    )
    assert sorted(answer.status_code for answer in answers)[1:] == [409, 409, 409]
    decided = {record["details"]["decision"] for record in await office.audited("approved")} | {
        record["details"]["decision"] for record in await office.audited("rejected")
    }
    assert len(decided) == 1


async def test_a_cause_is_discarded_as_it_was_seen(office: Office, admin: Person) -> None:
    await office.park()
    (group,) = await admin.groups()
    await office.park()
    seen = {"cause": "planted", "expected_count": group["selectable"], "reason": "all of them"}
    assert (await admin.post("/discard", seen)).status_code == 409
    seen["up_to_id"] = group["last_id"]
    assert (await admin.post("/discard", seen)).json()["count"] == 1
    assert await states(office) == ["discarded", "parked"]


async def test_who_may_not_approve_is_refused(office: Office, admin: Person) -> None:
    decision = await ask(office, admin)
    reader = await office.person(scopes=["ops.read", "ops.redrive"])
    assert (await reader.post(f"/decisions/{decision}/approve")).status_code == 403


async def test_an_unknown_decision_is_not_found(office: Office, admin: Person) -> None:
    nothing = "0199aaaa-0000-7000-8000-000000000000"
    assert (await admin.post(f"/decisions/{nothing}/approve")).status_code == 404
