"""Sealing the patients that the release before stored in clear, in batches, while everything runs."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import structlog
from clinic_shared.database import Database, Transaction
from clinic_shared.health import Health
from clinic_shared.loops import keep_running, pause
from sqlalchemy import func, select

from clinic_patients import store
from clinic_patients.tables import patient

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

log = structlog.get_logger()

NAME = "sealing of patients"
BATCH = 50
BETWEEN_BATCHES_SECONDS = 0.05
INTERVAL_SECONDS = 3600.0
_LOCK = 0x0C11_7EC3
_FIRST = UUID(int=0)


async def seal_patients(runtime: "Runtime", stop: asyncio.Event) -> None:
    """Seal what is still in clear, now and every hour, until told to stop."""
    health = Health.of(runtime)

    async def work() -> None:
        while not stop.is_set():
            if runtime.database.keyring.encrypting:
                await seal_all(runtime.database, stop)
            health.report(NAME, None)
            await pause(stop, INTERVAL_SECONDS)

    await keep_running(NAME, stop, work, health)


async def seal_all(database: Database, stop: asyncio.Event) -> int:
    """Seal all patients in clear; returns how many. Says nothing new of anybody, so nothing is published."""
    done, after = 0, _FIRST
    while not stop.is_set():
        async with database.transaction() as tx:
            patient_ids = await _next(tx, after)
            for patient_id in patient_ids:
                found = await store.lock_patient(tx, patient_id)
                if found is not None:
                    await store.save_patient(tx, found)
        if not patient_ids:
            break
        done, after = done + len(patient_ids), patient_ids[-1]
        await pause(stop, BETWEEN_BATCHES_SECONDS)
    if done:
        log.info("patients_sealed", count=done)
    return done


async def _next(tx: Transaction, after: UUID) -> Sequence[UUID]:
    # One process at a time: two would only wait for each other's rows.
    mine = await tx.fetch_one(select(func.pg_try_advisory_xact_lock(_LOCK)))
    if mine is None or not mine[0]:
        return []
    rows = await tx.fetch_all(
        select(patient.c.patient_id)
        .where(patient.c.person.is_(None), patient.c.registered_at.is_not(None), patient.c.patient_id > after)
        .order_by(patient.c.patient_id)
        .limit(BATCH)
    )
    return [row.patient_id for row in rows]
