"""What was received and what could not take effect is encrypted: beside each row, its wrapped data key.

Expand only: a row without a data key is as it came, and those of the release before are.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE intake ADD COLUMN data_key bytea")
    op.execute("ALTER TABLE held ADD COLUMN data_key bytea")
    with op.get_context().autocommit_block():
        # What is still to be encrypted: empty but for an upgrade, so that looking costs nothing.
        op.execute(
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS intake_in_clear ON intake (id) WHERE data_key IS NULL"
        )
        op.execute(
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS held_in_clear ON held (id) WHERE data_key IS NULL"
        )
