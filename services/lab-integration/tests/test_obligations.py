"""Results that somebody has to answer for: they have an owner and a deadline until somebody does."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from clinic_lab_integration import obligations
from clinic_shared.ids import uuid7
from clinic_shared.metrics import REGISTRY
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from .conftest import Laboratory

OBLIGATIONS = "/v1/lab/obligations"
READ_BACK = {"comment": "Haemoglobin 40 read back; the patient is called in"}


def message(
    compose: Any, *, order: str = "", value: str = "40", flags: str = "LL", control_id: str = "M-1"
) -> bytes:
    return compose(
        "PID|1||MRN-1^^^POLYCLINIC^MR",
        f"OBR|1|{order}|F-1^LIS|718-7^Hb^LN||||||||||||||||||20260115102500+0300|||F",
        f"OBX|1|NM|718-7^Haemoglobin^LN||{value}|g/L|120-140|{flags}|||F",
        msh={10: control_id},
    )


async def hire(lab: Laboratory, staff_id: UUID | None = None) -> UUID:
    staff_id = staff_id or uuid7()
    await lab.lab.deliver_example(
        "identity.staff-member-added.v1",
        staff_id=str(staff_id),
        practitioner=True,
        active=True,
        department_ids=[str(lab.department_id)],
    )
    return staff_id


async def on_duty(lab: Laboratory, **people: UUID) -> None:
    answer = await lab.lab.http.put(
        f"/v1/lab/duties/{lab.department_id}",
        json={name: str(person) for name, person in people.items()},
        headers=lab.headers("system-administrator"),
    )
    assert answer.status_code == 200, answer.text


async def waiting(lab: Laboratory, **query: Any) -> list[Any]:
    return list((await lab.get(OBLIGATIONS, **query))["items"])


async def acknowledge(lab: Laboratory, obligation: Any, body: Any = READ_BACK, **claims: Any) -> Any:
    return await lab.lab.http.post(
        f"{OBLIGATIONS}/{obligation['obligation_id']}/acknowledge",
        json=body,
        headers=lab.headers("doctor", **claims),
    )


async def raise_critical(lab: Laboratory, compose: Any) -> Any:
    """A critical result of an order; returns its obligation."""
    patient_id = await lab.add_patient()
    order = await lab.order(patient_id)
    await lab.send(message(compose, order=f"{order['placer_order_number']}^POLYCLINIC"))
    [obligation] = await waiting(lab)
    assert obligation["owner_id"] == order["practitioner_id"]
    return obligation


async def test_a_critical_result_climbs_until_somebody_answers(lab: Laboratory, compose) -> None:
    head, on_call = await hire(lab), await hire(lab)
    await on_duty(lab, head_id=head, on_call_id=on_call)
    obligation = await raise_critical(lab, compose)
    assert (obligation["kind"], obligation["owner_role"]) == ("critical-result", "ordering-practitioner")
    asked = []
    for minutes in (60, 30, 30, 30):
        assert await lab.lab.fire_timers() == 0
        lab.lab.clock.advance(minutes=minutes)
        assert await lab.lab.fire_timers() == 1
        [now] = await waiting(lab)
        asked.append((now["status"], now["owner_role"], now["owner_id"]))
    head_asked, on_call_asked = (
        ("escalated", "head-of-department", str(head)),
        ("escalated", "on-call", str(on_call)),
    )
    assert asked == [head_asked, *[on_call_asked] * 3]
    escalated = await lab.lab.events("lab-integration.critical-result-escalated.v1")
    assert [e.data["escalations"] for e in escalated] == [1, 2, 3, 4]
    assert escalated[0].private["observations"][0]["value"] == "40"


async def test_whoever_answers_reads_back_and_ends_it(lab: Laboratory, compose) -> None:
    obligation = await raise_critical(lab, compose)
    detail = await lab.get(f"{OBLIGATIONS}/{obligation['obligation_id']}")
    assert [(v["code"], v["value"], v["units"]) for v in detail["critical_values"]] == [
        ("718-7", "40", "g/L")
    ]
    for empty in ({}, {"comment": "ok"}):
        assert (await acknowledge(lab, obligation, empty)).status_code == 422
    answer = await acknowledge(lab, obligation)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["status"], answer.json()["comment"]) == ("acknowledged", READ_BACK["comment"])
    assert answer.json()["acknowledged_by"]
    assert await waiting(lab) == []
    assert [o["obligation_id"] for o in await waiting(lab, waiting=False)] == [obligation["obligation_id"]]
    lab.lab.clock.advance(hours=5)
    assert await lab.lab.fire_timers() == 0
    [told] = await lab.lab.events("lab-integration.critical-result-acknowledged.v1")
    assert told.private["comment"] == READ_BACK["comment"]


async def test_of_several_who_answer_at_once_one_has_answered(lab: Laboratory, compose) -> None:
    obligation = await raise_critical(lab, compose)
    answers = await asyncio.gather(*(acknowledge(lab, obligation) for _ in range(4)))
    assert sorted(a.status_code for a in answers) == [200, 409, 409, 409]
    refused = next(a.json() for a in answers if a.status_code == 409)
    assert refused["type"] == "/problems/already-acknowledged"
    assert refused["acknowledged_by"]


async def test_an_obligation_can_t_be_deleted(lab: Laboratory, compose) -> None:
    await raise_critical(lab, compose)
    for statement in ("DELETE FROM obligation", "TRUNCATE obligation"):
        with pytest.raises(DBAPIError, match="ends by being acknowledged"):
            async with lab.lab.runtime.database.transaction() as tx:
                await tx.execute(text(statement))
    assert len(await waiting(lab)) == 1


async def test_what_the_release_before_raises_has_an_owner_and_a_timer(lab: Laboratory, compose) -> None:
    order = await lab.order(await lab.add_patient())
    await lab.send(
        message(compose, order=f"{order['placer_order_number']}^POLYCLINIC", value="130", flags="")
    )
    async with lab.lab.runtime.database.transaction() as tx:
        await tx.execute(
            text(
                "INSERT INTO critical_result SELECT gen_random_uuid(), 1, 'open', result_id, 1, patient_id,"
                " :now, :now FROM lab_result"
            ),
            {"now": tx.now},
        )
    [obligation] = await waiting(lab)
    assert obligation["owner_id"] == order["practitioner_id"]
    assert await lab.lab.fire_timers() == 1
    [obligation] = await waiting(lab)
    assert (obligation["status"], obligation["owner_role"]) == ("escalated", "on-call")


async def test_a_result_that_nobody_ordered_is_read_by_somebody(lab: Laboratory, compose) -> None:
    head = await hire(lab)
    await on_duty(lab, head_id=head)
    configured = await lab.lab.http.put(
        f"/v1/lab/partners/{lab.partner_id}",
        json={"default_department_id": str(lab.department_id)},
        headers=lab.headers("system-administrator"),
    )
    assert configured.status_code == 200
    await lab.add_patient()
    await lab.send(message(compose, value="112", flags=""))
    [review] = await waiting(lab)
    assert (review["kind"], review["owner_id"]) == ("review", str(head))
    await lab.send(message(compose, value="113", flags="", control_id="M-2"))
    assert len(await waiting(lab)) == 1
    assert (await acknowledge(lab, review, {"comment": "read, nothing to do"})).status_code == 200
    assert await lab.lab.events("lab-integration.critical-result-acknowledged.v1") == []


async def test_whoever_has_read_what_is_withdrawn_has_to_say_so(lab: Laboratory, compose) -> None:
    head = await hire(lab)
    await on_duty(lab, head_id=head)
    readers = [uuid7(), uuid7()]
    place: dict[str, Any] = {"department_id": str(lab.department_id), "centre_id": str(lab.centre_id)}
    told = [{"reader_id": str(r), "version": 1, "read_at": "2026-03-02T06:00:00Z"} for r in readers]
    for _ in range(2):
        await lab.lab.deliver_example("patients.retracted-result-read.v1", readers=told, **place)
    alerts = await waiting(lab, kind="retraction")
    assert [(a["owner_role"], a["owner_id"]) for a in alerts] == [("reader", str(r)) for r in readers]
    mine = await lab.lab.http.get(
        OBLIGATIONS, params={"mine": True}, headers=lab.headers(subject=readers[0], network=False)
    )
    assert [o["obligation_id"] for o in mine.json()["items"]] == [alerts[0]["obligation_id"]]
    await acknowledge(lab, alerts[0], {"comment": "treatment stopped"})
    lab.lab.clock.advance(hours=5)
    assert await lab.lab.fire_timers() == 1
    [left] = await waiting(lab, kind="retraction")
    assert (left["owner_role"], left["owner_id"]) == ("head-of-department", str(head))


async def test_a_result_that_somebody_ordered_and_that_can_wait_obliges_nobody(
    lab: Laboratory, compose
) -> None:
    order = await lab.order(await lab.add_patient())
    await lab.send(
        message(compose, order=f"{order['placer_order_number']}^POLYCLINIC", value="130", flags="")
    )
    assert await waiting(lab) == []


async def test_what_waits_for_somebody_who_leaves_waits_for_the_next_one_at_once(
    lab: Laboratory, compose
) -> None:
    head = await hire(lab)
    await on_duty(lab, head_id=head)
    obligation = await raise_critical(lab, compose)
    await lab.lab.deliver_example(
        "identity.staff-member-deactivated.v1", staff_id=obligation["owner_id"], active=False
    )
    [passed_on] = await waiting(lab)
    assert (passed_on["owner_role"], passed_on["owner_id"]) == ("head-of-department", str(head))


async def test_only_those_who_work_there_see_it_and_whoever_is_asked(lab: Laboratory, compose) -> None:
    obligation = await raise_critical(lab, compose)
    path = f"{OBLIGATIONS}/{obligation['obligation_id']}"
    elsewhere: dict[str, Any] = {"network": False, "department_ids": frozenset()}

    async def status(*roles: str, **claims: Any) -> int:
        headers = lab.headers(*(roles or ("doctor",)), **claims)
        return int((await lab.lab.http.get(path, headers=headers)).status_code)

    assert await status(**elsewhere) == 404
    assert (await acknowledge(lab, obligation, **elsewhere)).status_code == 404
    assert await status(network=False, department_ids=frozenset({lab.department_id})) == 200
    assert await status(**elsewhere, subject=UUID(obligation["owner_id"])) == 200
    for role in ("registrar", "biller", "system-administrator", "lab"):
        assert await status(role) == 403
    assert (await lab.lab.http.get(OBLIGATIONS)).status_code == 401
    listed = await lab.lab.http.get(OBLIGATIONS, headers=lab.headers("doctor", **elsewhere))
    assert listed.json()["items"] == []


async def test_those_on_duty_must_be_at_work(lab: Laboratory) -> None:
    path, headers = f"/v1/lab/duties/{lab.department_id}", lab.headers("system-administrator")
    answer = await lab.lab.http.put(path, json={"head_id": str(uuid7())}, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/reference-not-yet-known")
    gone = await hire(lab)
    await lab.lab.deliver_example(
        "identity.staff-member-deactivated.v1", version=2, staff_id=str(gone), active=False
    )
    headers = lab.headers("system-administrator")
    answer = await lab.lab.http.put(path, json={"on_call_id": str(gone)}, headers=headers)
    assert answer.status_code == 422
    assert (await lab.lab.http.get(path, headers=headers)).status_code == 404
    assert (await lab.lab.http.put(path, json={}, headers=lab.headers("doctor"))).status_code == 403


async def test_overdue_obligations_are_a_metric(lab: Laboratory, compose) -> None:
    obligation = await raise_critical(lab, compose)

    async def measured() -> tuple[float | None, float | None]:
        async with lab.lab.runtime.database.transaction() as tx:
            await obligations.measure(lab.lab.runtime, tx)
        of_critical = {"kind": "critical-result"}
        names = ("clinic_lab_obligations", "clinic_lab_obligations_overdue")
        waits, overdue = (REGISTRY.get_sample_value(name, of_critical) for name in names)
        return waits, overdue

    assert await measured() == (1, 0)
    lab.lab.clock.advance(minutes=61)
    await lab.lab.fire_timers()
    assert await measured() == (1, 1)
    await acknowledge(lab, obligation)
    assert await measured() == (0, 0)


def called(events: Any) -> list[tuple[int, str, str]]:
    """Who was to be told, of which version, as what."""
    return [(e.data["version"], e.data["owner_role"], e.data["owner_id"]) for e in events]


async def test_whoever_is_asked_is_to_be_told_without_the_patient(lab: Laboratory, compose) -> None:
    head = await hire(lab)
    await on_duty(lab, head_id=head)
    obligation = await raise_critical(lab, compose)
    lab.lab.clock.advance(minutes=60)
    assert await lab.lab.fire_timers() == 1
    lab.lab.clock.advance(minutes=30)
    assert await lab.lab.fire_timers() == 1
    events = await lab.lab.events("lab-integration.obligation-assigned.v1")
    assert called(events) == [
        (1, "ordering-practitioner", obligation["owner_id"]),
        (2, "head-of-department", str(head)),
    ], "nobody is on call, so nobody can be told of the third"
    assert {e.data["kind"] for e in events} == {"critical-result"}
    assert "patient_id" not in events[0].data
    assert not events[0].private


async def test_of_a_review_somebody_is_told_when_nobody_has_read_it_in_time(lab: Laboratory, compose) -> None:
    head, on_call = await hire(lab), await hire(lab)
    await on_duty(lab, head_id=head, on_call_id=on_call)
    answer = await lab.lab.http.put(
        f"/v1/lab/partners/{lab.partner_id}",
        json={"default_department_id": str(lab.department_id)},
        headers=lab.headers("system-administrator"),
    )
    assert answer.status_code == 200, answer.text
    await lab.add_patient()
    await lab.send(message(compose, value="130", flags=""))
    assert await lab.lab.events("lab-integration.obligation-assigned.v1") == []
    lab.lab.clock.advance(days=3)
    assert await lab.lab.fire_timers() == 1
    events = await lab.lab.events("lab-integration.obligation-assigned.v1")
    assert called(events) == [(2, "on-call", str(on_call))]
