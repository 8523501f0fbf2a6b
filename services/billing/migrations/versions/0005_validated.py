"""What the migrations before could only do under long locks: done here, each statement by itself and repeatable."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE notification VALIDATE CONSTRAINT notification_disposition_check",
    "ALTER TABLE provider_call VALIDATE CONSTRAINT provider_call_kind_check",
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS notification_open ON notification (disposition) WHERE disposition IN ('in-flight', 'parked')",
    "ALTER TABLE invoice VALIDATE CONSTRAINT invoice_of_one_thing",
    "ALTER TABLE invoice VALIDATE CONSTRAINT invoice_status_check",
    "ALTER TABLE refund VALIDATE CONSTRAINT refund_four_eyes",
    "ALTER TABLE refund VALIDATE CONSTRAINT refund_status_check",
    "ALTER TABLE ledger_movement VALIDATE CONSTRAINT ledger_movement_kind_check",
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS invoice_advance_for ON invoice (for_appointment_id) WHERE for_appointment_id IS NOT NULL",
)


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for statement in STATEMENTS:
            op.execute(statement)
