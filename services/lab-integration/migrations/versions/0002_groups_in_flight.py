"""Finding the groups that the chart hasn't filed yet, among all that it has."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS lab_unit_in_flight ON lab_unit (received_at) "
            "WHERE disposition = 'in-flight'"
        )
