"""Finding the messages of a laboratory that failed and are tried again, among all that wait."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS intake_failing ON intake ((attributes ->> 'partner_id')) "
            "WHERE state = 'received' AND attempts > 0"
        )
