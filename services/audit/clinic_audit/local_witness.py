"""A witness beside the service: its file should lie where the database's administrator can't write.

A second one on another machine is `clinic audit witness`, which asks for the same over HTTP.
"""

import asyncio
from typing import TYPE_CHECKING, cast

import structlog
from clinic_shared.health import Health
from clinic_shared.loops import keep_running, pause

from clinic_audit import store
from clinic_audit.settings import AuditSettings
from clinic_audit.signing import INTERVAL_SECONDS, Signer
from clinic_audit.witnessing import ContradictionError, Witness

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

log = structlog.get_logger()

NAME = "witness"


async def witness_checkpoints(runtime: "Runtime", stop: asyncio.Event) -> None:
    """Show every checkpoint to the witness file until told to stop; what contradicts it is an alarm, each time."""
    file = cast("AuditSettings", runtime.settings).audit_witness_file
    if file is None:
        return

    health = Health.of(runtime)

    async def work() -> None:
        witness = await asyncio.to_thread(Witness, file, runtime.get(Signer).public_key)
        while not stop.is_set():
            await show(runtime, witness)
            health.report(NAME, None)
            await pause(stop, INTERVAL_SECONDS)

    await keep_running(NAME, stop, work, health)


async def show(runtime: "Runtime", witness: Witness) -> None:
    """Show the witness what was signed since. Raises ContradictionError."""
    while True:
        async with runtime.database.transaction() as tx:
            following = await store.next_statements(tx, witness.size)
        for statement in following:
            try:
                await asyncio.to_thread(witness.take, statement)
            except ContradictionError:
                log.error("audit_log_contradicts_witness", size=statement.checkpoint.tree_size)  # noqa: TRY400  # raised
                raise
        if not following:
            return
