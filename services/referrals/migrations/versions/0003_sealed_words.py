"""What departments ask and answer about patients lies sealed: beside each row, its wrapped data key.

Expand only: a row without a data key is as it came, and those of the release before are.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE referral ADD COLUMN sealed bytea, ADD COLUMN data_key bytea")
    with op.get_context().autocommit_block():
        # What is still to be sealed: empty but for an upgrade, so that looking costs nothing.
        op.execute(
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS referral_in_clear ON referral (referral_id) "
            "WHERE data_key IS NULL"
        )
