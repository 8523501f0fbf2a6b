"""What became of each callback of a vendor."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

CALLBACK = """
CREATE TABLE callback (
    intake_id uuid PRIMARY KEY,
    disposition text NOT NULL CHECK (disposition IN ('applied', 'superseded', 'rejected')),
    reason text,
    decided_at timestamptz NOT NULL
)
"""


def upgrade() -> None:
    op.execute(CALLBACK)
