"""Lab orders that were cancelled: one that is told of later than its cancellation is not invoiced."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

CANCELLED = """
CREATE TABLE cancelled_lab_order (
    lab_order_id uuid PRIMARY KEY,
    recorded_at timestamptz NOT NULL
)
"""


def upgrade() -> None:
    op.execute(CANCELLED)
