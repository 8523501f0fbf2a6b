"""From records in the log to an incident that a privacy officer closes."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from clinic_audit.detecting import Watcher
from clinic_audit.detection_rules import Rules
from clinic_audit.people import PersonName, family_of
from clinic_audit.recording import record_batch
from clinic_shared.audit import Outcome
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.testing import ServiceHarness

from .conftest import RecordFactory

NAME = {"family": "Вымышленная", "given": "Анна", "patronymic": "Примеровна"}


async def take_in(audit: ServiceHarness, *records: Any) -> None:
    async with audit.runtime.database.transaction() as tx:
        await record_batch(tx, records)


async def judge(audit: ServiceHarness, watcher: Watcher | None = None) -> Watcher:
    """Let detection judge all there is, as its loop does."""
    watcher = watcher or Watcher(Rules.load())
    for _ in range(2):  # the first time it only notes where to begin
        async with audit.runtime.database.transaction() as tx:
            while await watcher.judge_some(tx):
                pass
    return watcher


async def ask(
    audit: ServiceHarness, method: str, path: str, who: Principal, body: Any = None
) -> httpx.Response:
    return await audit.http.request(method, f"/v1/audit/{path}", json=body, headers=audit.headers(who))


async def waiting(audit: ServiceHarness, officer: Principal) -> list[dict[str, Any]]:
    answer = await ask(audit, "GET", "suspicions", officer)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


@pytest.fixture
def officer(audit: ServiceHarness) -> Principal:
    return audit.principal("privacy-officer")


@pytest.fixture
async def denials(audit: ServiceHarness, record: RecordFactory) -> Principal:
    """Somebody who was refused twelve times within a minute."""
    who = audit.principal("registrar")
    refused = [record(n, principal=who, outcome=Outcome.DENIED, at=audit.clock.now()) for n in range(12)]
    await take_in(audit, *refused)
    return who


async def test_what_is_found_is_told_once_and_waits_for_the_privacy_officer(
    audit: ServiceHarness, officer: Principal, denials: Principal
) -> None:
    watcher = await judge(audit)
    await judge(audit, watcher)
    [found] = await waiting(audit, officer)
    assert (found["rule"], found["state"], UUID(found["person"])) == (
        "repeated-denials",
        "open",
        denials.subject,
    )
    assert found["records"] == list(range(10))
    [event] = await audit.events("audit.suspicious-access-detected.v1")
    assert event.data["suspicion_id"] == found["suspicion_id"]


async def test_a_process_that_begins_anew_finds_the_same_and_tells_nothing_twice(
    audit: ServiceHarness, officer: Principal, denials: Principal, record: RecordFactory
) -> None:
    await judge(audit)
    await take_in(audit, record(12, principal=denials, outcome=Outcome.DENIED, at=audit.clock.now()))
    await judge(audit, Watcher(Rules.load()))
    assert len(await waiting(audit, officer)) == 1
    assert len(await audit.events("audit.suspicious-access-detected.v1")) == 1


async def test_what_began_before_a_restart_is_found_after_it(
    audit: ServiceHarness, officer: Principal, record: RecordFactory
) -> None:
    who = audit.principal("registrar")
    refused = [record(n, principal=who, outcome=Outcome.DENIED, at=audit.clock.now()) for n in range(10)]
    await take_in(audit, *refused[:6])
    await judge(audit)
    assert await waiting(audit, officer) == []
    await take_in(audit, *refused[6:])
    await judge(audit, Watcher(Rules.load()))
    assert len(await waiting(audit, officer)) == 1


async def test_one_takes_it_and_closes_it_with_a_finding(
    audit: ServiceHarness, officer: Principal, denials: Principal
) -> None:
    await judge(audit)
    [found] = await waiting(audit, officer)
    path = f"suspicions/{found['suspicion_id']}"
    body = {"finding": "misuse", "comment": "Вымышленное заключение"}
    assert (await ask(audit, "POST", f"{path}/close", officer, body)).status_code == 409
    taken = (await ask(audit, "POST", f"{path}/take", officer)).json()
    assert (taken["state"], UUID(taken["taken_by"])) == ("taken", officer.subject)
    assert (await ask(audit, "POST", f"{path}/take", officer)).status_code == 409
    closed = (await ask(audit, "POST", f"{path}/close", officer, body)).json()
    assert (closed["state"], closed["finding"]) == ("closed", "misuse")
    assert await waiting(audit, officer) == []
    [kept] = (await ask(audit, "GET", "suspicions?state=closed", officer)).json()["items"]
    assert kept == closed


async def test_nobody_judges_themselves(audit: ServiceHarness, denials: Principal) -> None:
    await judge(audit)
    same_person = audit.principal("privacy-officer", subject=denials.subject)
    [found] = await waiting(audit, same_person)
    answer = await ask(audit, "POST", f"suspicions/{found['suspicion_id']}/take", same_person)
    assert answer.status_code == 409
    assert answer.json()["type"].endswith("/suspicion-own")


@pytest.mark.parametrize("role", ["doctor", "system-administrator", "registrar", "management"])
async def test_only_the_privacy_officer_sees_it(audit: ServiceHarness, role: str) -> None:
    for path in ("suspicions", "watched-patients"):
        assert (await ask(audit, "GET", path, audit.principal(role))).status_code == 403


async def look_up(
    audit: ServiceHarness, record: RecordFactory, who: Principal, patient: UUID, pseq: int = 0
) -> None:
    await take_in(audit, record(pseq, principal=who, patient_id=patient, at=audit.clock.now()))
    audit.clock.advance(hours=1)
    await judge(audit)


async def test_a_watched_record_is_looked_up(
    audit: ServiceHarness, officer: Principal, record: RecordFactory
) -> None:
    patient, who = uuid7(), audit.principal("registrar")
    body = {"reason": "Вымышленное известное лицо"}
    assert (await ask(audit, "PUT", f"watched-patients/{patient}", officer, body)).status_code == 200
    assert len((await ask(audit, "GET", "watched-patients", officer)).json()) == 1
    await look_up(audit, record, who, patient)
    [found] = await waiting(audit, officer)
    assert (found["rule"], found["patient_id"]) == ("watched-patient", str(patient))
    assert (await ask(audit, "DELETE", f"watched-patients/{patient}", officer)).status_code == 204
    assert (await ask(audit, "DELETE", f"watched-patients/{patient}", officer)).status_code == 404


async def test_a_relative_is_looked_up_by_the_name_that_events_brought(
    audit: ServiceHarness, officer: Principal, record: RecordFactory
) -> None:
    who = audit.principal("registrar")
    await audit.deliver_example("identity.staff-member-added.v1", staff_id=str(who.subject), name=NAME)
    husband = {"family": "Вымышленный", "given": "Пётр", "patronymic": None}
    patient = await audit.deliver_example("patients.patient-registered.v1", name=NAME | husband)
    await look_up(audit, record, who, UUID(patient["patient_id"]))
    # «-ый» and «-ая» of adjectives aren't matched: too many words end so.
    assert await waiting(audit, officer) == []
    await audit.deliver_example("patients.patient-updated.v1", version=2, name=NAME | {"given": "Ева"})
    await look_up(audit, record, who, UUID(patient["patient_id"]), pseq=1)
    assert [found["rule"] for found in await waiting(audit, officer)] == ["own-name"]


async def test_a_colleague_is_looked_up_until_they_no_longer_work_here(
    audit: ServiceHarness, officer: Principal, record: RecordFactory
) -> None:
    colleague, who = uuid7(), audit.principal("registrar")
    await audit.deliver_example("identity.staff-member-added.v1", staff_id=str(colleague), name=NAME)
    patient = await audit.deliver_example("patients.patient-registered.v1", name=NAME)
    await look_up(audit, record, who, UUID(patient["patient_id"]))
    assert [found["rule"] for found in await waiting(audit, officer)] == ["colleague"]
    await audit.deliver_example(
        "identity.staff-member-deactivated.v1", version=2, staff_id=str(colleague), active=False
    )
    audit.clock.advance(days=2)
    await look_up(audit, record, who, UUID(patient["patient_id"]), pseq=1)
    assert len(await waiting(audit, officer)) == 1


@pytest.mark.parametrize(
    ("one", "other"), [("Иванов", "ИВАНОВА"), ("Алёшина", "Алешин"), ("Вымышленский", "Вымышленская")]
)
def test_relatives_share_a_family_name(one: str, other: str) -> None:
    assert family_of(PersonName(family=one)) == family_of(PersonName(family=other))


async def test_habits_outlive_the_process(
    audit: ServiceHarness, officer: Principal, record: RecordFactory
) -> None:
    """What somebody does every day isn't suspicious to a process that has just started."""
    who, pseq = audit.principal("registrar"), 0
    for _ in range(7):
        busy = [
            record(pseq + n, principal=who, at=audit.clock.now() + timedelta(minutes=n)) for n in range(40)
        ]
        pseq += 40
        await take_in(audit, *busy)
        await judge(audit)
        audit.clock.advance(days=1)
    assert len(await waiting(audit, officer)) == 5
