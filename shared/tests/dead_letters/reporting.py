"""A consumer whose handler does as it is told; `python reporting.py` works its redrive runs off and dies."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.dead_letters.run_worker import RedriveWorker
from clinic_shared.envelope import Envelope
from clinic_shared.service import Service, running
from clinic_shared.settings import ServiceSettings
from pydantic import BaseModel, SecretStr
from sqlalchemy import text

REGISTERED = "patients.patient-registered.v1"


class Registered(BaseModel):
    patient_id: UUID
    version: int


@dataclass
class Behaviour:
    """What the handler does with a patient's events, by version (0: all)."""

    errors: dict[tuple[UUID, int], Exception] = field(default_factory=dict)
    before: Callable[[Transaction, Envelope], Awaitable[None]] | None = None

    def fail(self, key: UUID, error: Exception, *, version: int = 0) -> None:
        self.errors[key, version] = error

    def recover(self) -> None:
        self.errors.clear()


def make_service(folder: Path, behaviour: Behaviour) -> Service:
    handlers = Handlers("reporting")

    @handlers.on(REGISTERED)
    async def remember(tx: Transaction, envelope: Envelope, payload: Registered) -> None:
        if behaviour.before is not None:
            await behaviour.before(tx, envelope)
        await tx.execute(
            text(
                "INSERT INTO effect (event_id, subject, version, origin) VALUES (:event, :subject, :version, :origin)"
            ),
            {
                "event": envelope.id,
                "subject": payload.patient_id,
                "version": payload.version,
                "origin": envelope.origin.value,
            },
        )
        for version in (0, payload.version):
            if error := behaviour.errors.get((payload.patient_id, version)):
                raise error

    (folder / "migrations" / "versions").mkdir(parents=True, exist_ok=True)
    return Service(name="reporting", package_dir=folder / "package", routers=(), handlers=handlers)


def settings_of(database_url: str, **more: object) -> ServiceSettings:
    return ServiceSettings(
        environment="test",
        database_url=SecretStr(database_url),
        amqp_url=SecretStr("amqp://nobody@127.0.0.1:1/"),
        **more,  # type: ignore[arg-type]  # a test's own
    )


async def _work(folder: Path, database_url: str) -> None:
    service = make_service(folder, Behaviour())
    async with running(service, settings_of(database_url)) as runtime:
        await RedriveWorker(runtime).run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(_work(Path(sys.argv[1]), os.environ["REPORTING_URL"]))
