"""Whether this process should be sent requests, and if not, why: what `/readyz` answers.

A service is ready without its broker: the outbox is the buffer. What keeps its loops from working is
told all the same.
"""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import text

from clinic_shared.health import Health
from clinic_shared.migrations import is_current
from clinic_shared.telemetry import describe_error

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

log = structlog.get_logger()

OK = "ok"
CHECK_SECONDS = 2


@dataclass(frozen=True)
class Report:
    """Each required check with `ok` or the reason why not, and what the loops complain of."""

    checks: dict[str, str]
    loops: dict[str, str]

    @property
    def ready(self) -> bool:
        return all(state == OK for state in self.checks.values())

    def as_document(self) -> dict[str, object]:
        return {"status": "ready" if self.ready else "not ready", "checks": self.checks, "loops": self.loops}


class Readiness:
    """The checks of one process."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self._migrated = False

    async def report(self) -> Report:
        database, migrations = await self.database()
        health = Health.of(self._runtime)
        process = "stopping" if health.stopping.is_set() else OK
        keys = OK if self._runtime.verifier.source.loaded else "the issuer's public keys were never read"
        return Report(
            checks={
                "process": process,
                "database": database,
                "migrations": migrations,
                "token keys": keys,
            },
            loops=dict(health.reasons),
        )

    async def database(self) -> tuple[str, str]:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                return OK, await self._migrations()
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the reason
            log.warning("readiness_check_failed", component="database", **describe_error(error))
            return f"unreachable: {type(error).__name__}", "unknown"

    async def _migrations(self) -> str:
        async with self._runtime.database.engine.connect() as connection:
            if self._migrated:
                await connection.execute(text("SELECT 1"))
            else:
                directory = self._runtime.service.migrations_dir
                self._migrated = await connection.run_sync(is_current, directory)
        return OK if self._migrated else "this release's migrations aren't all applied"

    async def warm_up(self) -> None:
        """Read the issuer's keys as soon as it is there, so that the first request needn't wait."""
        source = self._runtime.verifier.source
        while not source.loaded:
            await source.load()
            if not source.loaded:
                await asyncio.sleep(1)


class WorkerReadiness(Readiness):
    """A worker gets no requests: it is ready when its loops can do their work."""

    async def report(self) -> Report:
        database, migrations = await self.database()
        loops = dict(Health.of(self._runtime).reasons)
        complaints = "; ".join(f"{loop}: {reason}" for loop, reason in loops.items())
        return Report(
            checks={"database": database, "migrations": migrations, "loops": complaints or OK}, loops=loops
        )
