"""Turnaround by laboratory, test and stage. Results from before have none of these until the read model is rebuilt."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE lab_result_fact
            ADD COLUMN partner_id uuid,
            ADD COLUMN test_code text,
            ADD COLUMN test_system text,
            ADD COLUMN collected_at timestamptz,
            ADD COLUMN reported_at timestamptz
        """
    )
