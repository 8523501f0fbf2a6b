"""Who may read which report, what they get, and what is refused."""

from typing import Any

from clinic_reporting import tables
from clinic_shared.ids import uuid7
from clinic_shared.testing import ServiceHarness, assert_tables_match

from .conftest import PERIOD, Network

REPORTS = ("appointments", "utilisation", "referrals", "laboratory", "revenue", "activity")


async def test_without_a_token_there_is_no_answer(reporting: ServiceHarness) -> None:
    for report in (*REPORTS, "witnesses"):
        answer = await reporting.http.get(f"/v1/reports/{report}", params=PERIOD)
        assert answer.status_code == 401, report
        assert answer.headers["content-type"] == "application/problem+json"


async def test_only_management_reads_reports(network: Network) -> None:
    roles = ("management", "doctor", "registrar", "biller", "privacy-officer", "system-administrator")
    principal = network.reporting.principal
    callers = {role: principal(role) for role in roles}
    callers["patient"] = principal("patient", patient_id=uuid7())
    for report in REPORTS:
        statuses = {role: (await network.get(report, caller)).status_code for role, caller in callers.items()}
        assert statuses == {role: 200 if role == "management" else 403 for role in callers}, report


async def test_before_any_event_a_report_is_empty(network: Network) -> None:
    for report in REPORTS:
        answer = (await network.get(report)).json()
        assert (answer["items"], answer["as_of"]) == ([], None), report


async def test_an_impossible_period_is_refused(network: Network) -> None:
    """Empty, backwards, and longer than a year and a day."""
    for report in REPORTS:
        for ends_on in ("2026-03-02", "2026-03-01", "2027-03-04"):
            answer = await network.get(report, ends_on=ends_on)
            assert answer.status_code == 422, (report, ends_on)
            assert answer.json()["type"].endswith("/invalid-period")


async def test_a_question_that_makes_no_sense_is_refused(network: Network) -> None:
    senseless: list[dict[str, Any]] = [
        {"level": "room"},
        {"starts_on": "tomorrow"},
        {"center_id": "x"},
        {"centre_id": "x"},
    ]
    for query in senseless:
        assert (await network.get("appointments", **query)).status_code == 422, query


async def test_appointments_are_counted_by_status_and_service(network: Network) -> None:
    await network.appointment("appointment-completed", network.dermatology)
    await network.appointment("appointment-completed", network.dermatology)
    await network.appointment("appointment-missed", network.dermatology)
    await network.appointment("appointment-cancelled", network.dietetics)
    await network.reporting.deliver_example("scheduling.service-defined.v1")
    lines = {line["name"]: line for line in await network.items("appointments")}
    dermatology = lines["Dermatology"]
    assert dermatology["by_status"] == {
        "booked": 0,
        "confirmed": 0,
        "arrived": 0,
        "completed": 2,
        "cancelled": 0,
        "missed": 1,
    }
    assert (dermatology["total"], dermatology["missed_rate"]) == (3, 0.3333)
    assert dermatology["booked_seconds"] == 3 * dermatology["missed_seconds"] > 0
    [by_service] = dermatology["by_service"]
    assert by_service["by_status"] == dermatology["by_status"]
    assert by_service["name"] is not None
    assert (lines["Dietetics"]["booked_seconds"], lines["Dietetics"]["missed_rate"]) == (0, None)


async def test_days_are_those_of_the_centre(network: Network) -> None:
    """At half past ten in the evening of the 1st in UTC it is the 2nd in both cities; at 20:00, in Omsk only."""
    for department in (network.dermatology, network.omsk_dentistry):
        for starts_at, ends_at in (
            ("2026-03-01T20:00:00Z", "2026-03-01T20:30:00Z"),
            ("2026-03-01T22:30:00Z", "2026-03-01T23:00:00Z"),
        ):
            await network.appointment("appointment-booked", department, starts_at=starts_at, ends_at=ends_at)
    day: dict[str, Any] = {"starts_on": "2026-03-02", "ends_on": "2026-03-03"}
    lines = {
        line["name"]: line["total"] for line in await network.items("appointments", level="centre", **day)
    }
    assert lines == {"Moscow": 1, "Omsk": 2}
    [omsk] = await network.items("utilisation", centre_id=network.omsk, **day)
    assert [each["on"] for each in omsk["by_day"]] == ["2026-03-02"]


async def test_a_report_says_how_new_its_figures_are(network: Network) -> None:
    network.reporting.clock.advance(hours=1)
    heard_at = network.reporting.clock.now()
    await network.appointment("appointment-booked", network.dermatology)
    network.reporting.clock.advance(hours=1)
    answer = (await network.get("appointments")).json()
    assert answer["as_of"] == heard_at.isoformat().replace("+00:00", "Z")


async def test_managers_of_a_centre_read_their_centre_only(network: Network) -> None:
    for department in network.departments:
        await network.appointment("appointment-booked", department)
    manager = network.reporting.principal("management", network=False, centre_ids=frozenset({network.moscow}))
    seen = {line["name"] for line in await network.items("appointments", manager)}
    assert seen == {"Dermatology", "Dietetics"}
    [centre] = await network.items("appointments", manager, level="centre")
    assert (centre["name"], centre["total"]) == ("Moscow", 2)
    assert (await network.get("appointments", manager, centre_id=network.omsk)).status_code == 403


async def test_managers_of_a_department_read_no_figure_of_others(network: Network) -> None:
    for department in network.departments:
        await network.appointment("appointment-booked", department)
    manager = network.reporting.principal(
        "management", network=False, department_ids=frozenset({network.dietetics})
    )
    [line] = await network.items("appointments", manager)
    assert line["name"] == "Dietetics"
    assert await network.items("appointments", manager, level="centre") == []
    narrowed = await network.get("appointments", manager, level="centre", centre_id=network.moscow)
    assert narrowed.status_code == 403


async def test_a_centre_that_is_not_known_yet_is_asked_for_again(network: Network) -> None:
    answer = await network.get("appointments", centre_id=uuid7())
    assert answer.status_code == 409
    assert answer.json()["type"].endswith("/reference-not-yet-known")


async def test_tables_and_migrations_agree(reporting: ServiceHarness) -> None:
    await assert_tables_match(tables.metadata, reporting)
