"""Bookings through scheduling's API, against pgbench with the same SQL."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as wall_clock
from uuid import UUID

import aiohttp
import psycopg
from aiohttp import web
from clinic_scheduling import tables
from clinic_scheduling.app import service as scheduling
from clinic_shared.auth import claims_of
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.service import Runtime
from sqlalchemy import insert

from .figures import Figure, needs_servers
from .servers import Bench, database_of, rate_of

PRACTITIONERS = 64
SLOTS_A_DAY = 44


@dataclass(frozen=True)
class Calendar:
    """A clinic that receives around the clock, so that every booking finds a free time."""

    centre_id: UUID
    department_id: UUID
    service_id: UUID
    patient_id: UUID
    practitioners: list[UUID]
    first_day: datetime

    def booking(self, number: int) -> dict[str, str]:
        practitioner = self.practitioners[number % PRACTITIONERS]
        day, slot = divmod(number // PRACTITIONERS, SLOTS_A_DAY)
        starts_at = self.first_day + timedelta(days=day, minutes=30 * slot)
        return {
            "patient_id": str(self.patient_id),
            "service_id": str(self.service_id),
            "centre_id": str(self.centre_id),
            "department_id": str(self.department_id),
            "practitioner_id": str(practitioner),
            "starts_at": starts_at.isoformat(),
        }


async def fill_calendar(runtime: Runtime) -> Calendar:
    tomorrow = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    made = Calendar(uuid7(), uuid7(), uuid7(), uuid7(), [uuid7() for _ in range(PRACTITIONERS)], tomorrow)
    resource = {"version": 1, "kind": "practitioner", "name": "Bench", "active": True}
    hours = {"centre_id": made.centre_id, "valid_from": date(2020, 1, 1)}
    async with runtime.database.transaction() as tx:
        place = {"centre_id": made.centre_id, "version": 1, "time_zone": "UTC", "active": True}
        await tx.execute(insert(tables.centre).values(place))
        await tx.execute(
            insert(tables.department).values(
                department_id=made.department_id, centre_id=made.centre_id, version=1, active=True
            )
        )
        await tx.execute(insert(tables.patient).values(patient_id=made.patient_id, version=1, active=True))
        await tx.execute(
            insert(tables.service).values(
                service_id=made.service_id,
                version=1,
                code="bench",
                name="Bench",
                duration=timedelta(minutes=30),
                department_ids=[made.department_id],
                needs=["practitioner"],
                online_bookable=True,
                active=True,
                defined_at=tx.now,
            )
        )
        for practitioner_id in made.practitioners:
            departments = [made.department_id]
            await tx.execute(
                insert(tables.resource).values(
                    resource | {"resource_id": practitioner_id, "department_ids": departments}
                )
            )
            week = [
                hours
                | {
                    "weekly_hours_id": uuid7(),
                    "practitioner_id": practitioner_id,
                    "weekday": day,
                    "starts_local": wall_clock(0),
                    "ends_local": wall_clock(23, 59),
                }
                for day in range(7)
            ]
            await tx.execute(insert(tables.weekly_hours), week)
    return made


def registrars_token(bench: Bench) -> str:
    caller = Principal(
        subject=uuid7(),
        kind="staff",
        roles=frozenset({"registrar"}),
        scopes=frozenset({"appointments.book"}),
        network=True,
    )
    return bench.signer.sign(claims_of(caller, issued_at=datetime.now(UTC), lifetime_seconds=300))


@needs_servers
async def bookings(bench: Bench) -> list[Figure]:
    bench.prepare(scheduling)
    async with bench.runtime(scheduling) as runtime:
        calendar = await fill_calendar(runtime)
    token = registrars_token(bench)
    async with bench.api(scheduling) as url:

        async def book(http: aiohttp.ClientSession, number: int) -> None:
            headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": str(uuid7())}
            body = calendar.booking(number)
            async with http.post(f"{url}/v1/appointments", json=body, headers=headers) as answer:
                assert answer.status == web.HTTPCreated.status_code, await answer.text()

        ours = await rate_of(book)
    with psycopg.connect(bench.postgres.url_of(database_of(scheduling)), autocommit=True) as db:
        db.execute("CREATE SEQUENCE bench_booking")
    limit = bench.pgbench(scheduling, "booking.sql")
    return [Figure.ratio("bookings against pgbench with the same SQL", ours=ours, limit=limit, target=0.25)]
