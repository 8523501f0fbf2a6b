"""No way leads below the retention floors: not by settings, nor the API, nor SQL of the service's role, nor a clock."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from clinic_audit.app import service
from clinic_audit.archiving import Rules
from clinic_audit.retention import floors
from clinic_audit.settings import AuditSettings
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from .conftest import OLD, RULES, YOUNG, Kept

URLS: dict[str, Any] = {
    "database_url": "postgresql://nobody@nowhere.invalid/x",
    "amqp_url": "amqp://nowhere.invalid",
}


@pytest.mark.parametrize(
    "values",
    [
        {"audit_kept_years": 5},
        {"audit_kept_years": 0},
        {"audit_kept_years": 24, "jurisdiction": "152-fz"},
        {"audit_online_days": 89},
        {"jurisdiction": "none"},
    ],
)
def test_settings_below_the_floor_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AuditSettings(**URLS, **values)


def test_settings_keep_what_the_jurisdiction_asks_by_themselves() -> None:
    kept = {name: AuditSettings(**URLS, jurisdiction=name).kept_years for name in floors()}
    assert kept == {"gdpr": 6, "hipaa": 6, "152-fz": 25}
    assert AuditSettings(**URLS, audit_kept_years=30).kept_years == 30


async def test_the_database_holds_the_floors_of_the_profiles(kept: Kept) -> None:
    async with kept.audit.runtime.database.transaction() as tx:
        rows = await tx.fetch_all(text("SELECT jurisdiction, kept_years FROM retention_floor"))
    assert {row.jurisdiction: row.kept_years for row in rows} == {
        name: floor.kept_years for name, floor in floors().items()
    }


def test_no_operation_removes_records_or_archives() -> None:
    removing = {
        route.path
        for router in service.routers
        for route in router.routes
        if "DELETE" in (route.methods or ())
    }
    assert removing == {"/v1/audit/watched-patients/{patient_id}"}


LEAVE_BEHIND = "INSERT INTO archived_record SELECT leaf_index, producer, pseq, leaf_hash FROM audit_record WHERE leaf_index < 15"
ARCHIVE = (
    "INSERT INTO archive_segment (first_index, end_index, subtrees, file_name, file_digest, jurisdiction,"
    " last_received_at, kept_until, archived_at)"
    " SELECT 0, {end}, '{{}}', 'x', '', '{jurisdiction}', max(received_at), {kept_until}, now()"
    " FROM audit_record WHERE leaf_index < {end}"
)
LONG_ENOUGH = "max(received_at) + interval '6 years'"


def archive(end: int = OLD, jurisdiction: str = "gdpr", kept_until: str = LONG_ENOUGH) -> str:
    return ARCHIVE.format(end=end, jurisdiction=jurisdiction, kept_until=kept_until)


REFUSED = "append-only|at least|never lowered|up to a checkpoint|violates|kept until|never taken back"
"""By what the database says of it, and not because the statement is wrong."""

BEFORE: dict[str, Sequence[str]] = {
    "delete": ["DELETE FROM audit_record WHERE leaf_index = 0"],
    "delete-all": ["DELETE FROM audit_record"],
    "truncate": ["TRUNCATE audit_record CASCADE"],
    "delete-without-an-archive": [LEAVE_BEHIND, "DELETE FROM audit_record WHERE leaf_index < 15"],
    "delete-leaving-nothing": [archive(), "DELETE FROM audit_record WHERE leaf_index < 15"],
    "delete-beyond-the-archive": [
        archive(),
        LEAVE_BEHIND.replace("15", "16"),
        "DELETE FROM audit_record WHERE leaf_index < 16",
    ],
    "archive-too-short": [archive(kept_until=f"{LONG_ENOUGH} - interval '1 day'")],
    "archive-too-short-there": [archive(jurisdiction="152-fz")],
    "archive-of-no-law": [archive(jurisdiction="none")],
    "archive-the-young": [archive(end=OLD + YOUNG)],
    "archive-to-no-checkpoint": [archive(end=12)],
    "archive-older-than-it-is": [
        archive().replace("max(received_at), ", "max(received_at) - interval '9 years', ")
    ],
    "lower-floor": ["UPDATE retention_floor SET kept_years = 6 WHERE jurisdiction = '152-fz'"],
    "no-floor": ["DELETE FROM retention_floor"],
    "no-floors": ["TRUNCATE retention_floor CASCADE"],
    "floor-of-a-law-that-asks-for-less": ["INSERT INTO retention_floor VALUES ('none', 5)"],
}


async def test_sql_of_the_service_removes_nothing_that_is_not_archived(kept: Kept) -> None:
    for path, statements in BEFORE.items():
        with pytest.raises(DBAPIError, match=REFUSED):
            await kept.run(*statements)
        there = await kept.count("audit_record"), await kept.count("archive_segment")
        assert (there, path) == ((OLD + YOUNG, 0), path)


AFTER = {
    "shorter": "UPDATE archive_segment SET kept_until = kept_until - interval '1 second'",
    "destroyed": "UPDATE archive_segment SET destroyed_at = now(), data_key = NULL",
    "without-its-key": "UPDATE archive_segment SET data_key = NULL",
    "another-law": "UPDATE archive_segment SET jurisdiction = 'hipaa'",
    "another-file": "UPDATE archive_segment SET file_digest = ''",
    "not-removed": "UPDATE archive_segment SET removed_at = NULL",
    "delete": "DELETE FROM archive_segment",
    "truncate": "TRUNCATE archive_segment",
    "delete-hashes": "DELETE FROM archived_record",
    "alter-hashes": "UPDATE archived_record SET leaf_hash = ''",
    "truncate-hashes": "TRUNCATE archived_record",
}


async def test_sql_of_the_service_takes_nothing_back_from_an_archive(kept: Kept) -> None:
    await kept.archive()
    for path, statement in AFTER.items():
        with pytest.raises(DBAPIError, match=REFUSED):
            await kept.run(statement)
        assert ((await kept.verify()).findings, path) == ([], path)
    await kept.run("UPDATE archive_segment SET kept_until = kept_until + interval '1 year'")


async def test_the_code_asks_for_no_less_than_the_database_allows(kept: Kept) -> None:
    short = Rules(online=RULES.online, kept_years=5, jurisdiction="gdpr")
    with pytest.raises(DBAPIError, match="6 years at least"):
        await kept.archive(short)
    young = Rules(online=timedelta(days=-40), kept_years=6, jurisdiction="gdpr")
    with pytest.raises(DBAPIError, match="90 days at least"):
        await kept.archive(young)
    assert await kept.count("audit_record") == OLD + YOUNG


@pytest.mark.parametrize("days", [10_000, -10_000])
async def test_a_clock_that_was_moved_makes_nothing_older(kept: Kept, days: int) -> None:
    kept.audit.clock.advance(days=days)
    await kept.archive()
    assert await kept.count("audit_record") == (YOUNG if days > 0 else OLD + YOUNG)
    assert (await kept.verify()).findings == []
