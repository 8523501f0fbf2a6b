"""How long the past of dead letters is kept: attempts of messages that are gone, runs and decisions."""

from datetime import timedelta

from sqlalchemy import delete, exists

from clinic_shared.database import Transaction
from clinic_shared.dead_letters.tables import decision_table, run_table
from clinic_shared.held import attempt_table, held_table

KEPT_FOR = timedelta(days=90)
"""The audit log has the decisions for longer."""


async def forget_old(tx: Transaction) -> None:
    """Delete what ended longer ago. What still waits keeps all of its past."""
    before = tx.now - KEPT_FOR
    waits = exists().where(held_table.c.id == attempt_table.c.held_id)
    await tx.execute(delete(attempt_table).where(attempt_table.c.attempted_at < before, ~waits))
    await tx.execute(delete(run_table).where(run_table.c.finished_at < before))
    await tx.execute(delete(decision_table).where(decision_table.c.requested_at < before))
