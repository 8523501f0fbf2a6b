"""What audit is made of."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from clinic_shared.service import Runtime, Service

from clinic_audit import access_log, api, breach_api, breaches, consumers, fhir, suspicion_api
from clinic_audit.archive_tables import encrypted
from clinic_audit.archiving import archive_months
from clinic_audit.detecting import detect
from clinic_audit.intake import take_records
from clinic_audit.local_witness import witness_checkpoints
from clinic_audit.measurements import measure_log
from clinic_audit.settings import AuditSettings
from clinic_audit.signing import load_signer, sign_checkpoints
from clinic_audit.syslog_feed import feed_syslog


@asynccontextmanager
async def signing_key(runtime: Runtime) -> AsyncIterator[None]:
    runtime.provide(load_signer(cast("AuditSettings", runtime.settings)))
    yield


service = Service(
    name="audit",
    package_dir=Path(__file__).parent,
    settings=AuditSettings,
    key_files=load_signer,
    routers=(api.router, suspicion_api.router, breach_api.router, access_log.router, fhir.router),
    handlers=consumers.handlers,
    timers=breaches.timers,
    startup=(signing_key,),
    workers=(take_records, sign_checkpoints, witness_checkpoints, feed_syslog, detect, archive_months),
    encrypted=(encrypted,),
    measurements=(measure_log, breaches.measure_breaches),
)
