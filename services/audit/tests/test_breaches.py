"""A breach of personal data: its clocks by law, whom the log says it affects, and two officers to close it."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from clinic_audit.breach_domain import profiles
from clinic_audit.breaches import DUE, OVERDUE, measure_breaches
from clinic_audit.recording import record_batch
from clinic_shared.audit import Action, Outcome
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.testing import MONDAY, ServiceHarness

from .conftest import RecordFactory

THIEF = Principal(subject=uuid7(), kind="staff", roles=frozenset({"registrar"}))
NOTE = {"note": "Fictitious notice, number 1/2026"}
CONCLUSION = {"conclusion": "Fictitious: the password was replaced"}


@pytest.fixture
def officers(audit: ServiceHarness) -> tuple[Principal, Principal]:
    return audit.principal("privacy-officer"), audit.principal("privacy-officer")


async def ask(
    audit: ServiceHarness, method: str, path: str, who: Principal, body: Any = None, **query: Any
) -> httpx.Response:
    return await audit.http.request(
        method, f"/v1/audit/breaches{path}", json=body, params=query, headers=audit.headers(who)
    )


async def recorded(audit: ServiceHarness, who: Principal, **changes: Any) -> dict[str, Any]:
    scope = {
        "since": MONDAY.isoformat(),
        "until": (MONDAY + timedelta(hours=1)).isoformat(),
        **changes.pop("scope", {}),
    }
    body = {
        "jurisdiction": "152-fz",
        "summary": "Fictitious: an account was used by somebody else",
        "discovered_at": MONDAY.isoformat(),
        "scope": scope,
        **changes,
    }
    answer = await ask(audit, "POST", "", who, body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def hours(found: dict[str, Any]) -> dict[str, float]:
    return {
        clock["name"]: (datetime.fromisoformat(clock["due_at"]) - MONDAY).total_seconds() / 3600
        for clock in found["clocks"]
    }


@pytest.mark.parametrize(
    ("jurisdiction", "expected"),
    [
        ("gdpr", {"authority": 72, "patients": 72}),
        ("hipaa", {"authority": 60 * 24, "patients": 60 * 24}),
        ("152-fz", {"authority": 24, "investigation": 72}),
    ],
)
async def test_the_laws_clocks_run_from_the_discovery(
    audit: ServiceHarness, officers: tuple[Principal, Principal], jurisdiction: str, expected: dict[str, int]
) -> None:
    audit.clock.advance(hours=5)
    assert hours(await recorded(audit, officers[0], jurisdiction=jurisdiction)) == expected
    assert set(profiles()) == {"gdpr", "hipaa", "152-fz"}


async def test_whom_it_affects_is_what_the_log_says(
    audit: ServiceHarness, officers: tuple[Principal, Principal], record: RecordFactory
) -> None:
    seen = sorted(uuid7() for _ in range(3))
    others = {"refused": uuid7(), "later": uuid7(), "somebody-else": uuid7(), "changed": uuid7()}
    records = [
        *(record(n, principal=THIEF, patient_id=patient) for n, patient in enumerate([*seen, seen[0]])),
        record(5, principal=THIEF, patient_id=others["refused"], outcome=Outcome.DENIED),
        record(60, principal=THIEF, patient_id=others["later"]),
        record(7, principal=officers[1], patient_id=others["somebody-else"]),
        record(8, principal=THIEF, patient_id=others["changed"], action=Action.UPDATE),
        record(9, patient_id=uuid7()),
    ]
    async with audit.runtime.database.transaction() as tx:
        await record_batch(tx, records)
    found = await recorded(audit, officers[0], scope={"actor": str(THIEF.subject), "action": "R"})
    path = f"/{found['breach_id']}/affected"
    first = (await ask(audit, "GET", path, officers[0], limit=2)).json()
    rest = (await ask(audit, "GET", path, officers[0], cursor=first["next_cursor"])).json()
    listed = [*first["items"], *rest["items"]]
    assert [UUID(one["patient_id"]) for one in listed] == seen
    assert [one["accesses"] for one in listed] == [2, 1, 1]


async def test_a_notice_that_nobody_gave_is_overdue_until_it_is(
    audit: ServiceHarness, officers: tuple[Principal, Principal]
) -> None:
    found = await recorded(audit, officers[0])
    path = f"/{found['breach_id']}"

    async def late() -> tuple[set[str], float]:
        async with audit.runtime.database.transaction() as tx:
            await measure_breaches(audit.runtime, tx)
        clocks = (await ask(audit, "GET", path, officers[0])).json()["clocks"]
        return {one["name"] for one in clocks if one["overdue_at"]}, OVERDUE._value.get()

    await audit.fire_timers()
    assert await late() == (set(), 0)
    audit.clock.advance(hours=24)
    await audit.fire_timers()
    assert await late() == ({"authority"}, 1)
    told = await ask(audit, "POST", f"{path}/clocks/authority/meet", officers[0], NOTE)
    assert told.status_code == 200, told.text
    met = await ask(audit, "POST", f"{path}/clocks/investigation/meet", officers[0], NOTE)
    assert met.status_code == 200, met.text
    audit.clock.advance(hours=48)
    await audit.fire_timers()
    assert await late() == ({"authority"}, 0)


async def test_two_officers_close_it_and_only_when_everybody_was_told(
    audit: ServiceHarness, officers: tuple[Principal, Principal]
) -> None:
    first, second = officers
    path = f"/{(await recorded(audit, first))['breach_id']}"
    early = await ask(audit, "POST", f"{path}/ask-to-close", first, CONCLUSION)
    assert (early.status_code, early.json()["type"]) == (409, "/problems/breach-notices-open")
    for name in ("authority", "investigation"):
        assert (await ask(audit, "POST", f"{path}/clocks/{name}/meet", first, NOTE)).status_code == 200
    assert (await ask(audit, "POST", f"{path}/clocks/nobody/meet", first, NOTE)).status_code == 404
    unasked = await ask(audit, "POST", f"{path}/close", second)
    assert (unasked.status_code, unasked.json()["type"]) == (409, "/problems/breach-state")
    assert (await ask(audit, "POST", f"{path}/ask-to-close", first, CONCLUSION)).json()["state"] == "closing"
    alone = await ask(audit, "POST", f"{path}/close", first)
    assert (alone.status_code, alone.json()["type"]) == (409, "/problems/breach-second-person")
    assert (await ask(audit, "POST", f"{path}/reopen", second)).json()["state"] == "open"
    await ask(audit, "POST", f"{path}/ask-to-close", first, CONCLUSION)
    closed = (await ask(audit, "POST", f"{path}/close", second)).json()
    assert (closed["state"], closed["closed_by"]) == ("closed", str(second.subject))
    assert (await ask(audit, "GET", "", first)).json() == []
    assert len((await ask(audit, "GET", "", first, state="closed")).json()) == 1


async def test_nobody_else_reads_or_records_breaches_and_a_scope_has_a_length(
    audit: ServiceHarness, officers: tuple[Principal, Principal]
) -> None:
    found = await recorded(audit, officers[0])
    for role in ("doctor", "registrar", "system-administrator", "records-officer"):
        for path in ("", f"/{found['breach_id']}", f"/{found['breach_id']}/affected"):
            assert (await ask(audit, "GET", path, audit.principal(role))).status_code == 403, role
    assert (await ask(audit, "GET", f"/{uuid7()}", officers[0])).status_code == 404
    scope = {"since": MONDAY.isoformat(), "until": MONDAY.isoformat()}
    body = {key: found[key] for key in ("jurisdiction", "summary", "discovered_at")} | {"scope": scope}
    assert (await ask(audit, "POST", "", officers[0], body)).status_code == 422


async def test_when_the_next_notice_is_due_is_measured_until_all_are_given(
    audit: ServiceHarness, officers: tuple[Principal, Principal]
) -> None:
    path = f"/{(await recorded(audit, officers[0]))['breach_id']}"

    async def due_in_hours() -> float | None:
        async with audit.runtime.database.transaction() as tx:
            await measure_breaches(audit.runtime, tx)
        due_at = DUE._value.get()
        return (due_at - MONDAY.timestamp()) / 3600 if due_at else None

    assert await due_in_hours() == 24
    await ask(audit, "POST", f"{path}/clocks/authority/meet", officers[0], NOTE)
    assert await due_in_hours() == 72
    await ask(audit, "POST", f"{path}/clocks/investigation/meet", officers[0], NOTE)
    assert await due_in_hours() is None
