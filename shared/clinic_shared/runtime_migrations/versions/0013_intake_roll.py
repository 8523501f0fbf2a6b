"""Which processes may put something on the intake's queue, and until when all of it has a mark.

Expand only: the processes of the release before aren't in it, and are waited for as long as they ever were.
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE intake_process (
    process_id uuid PRIMARY KEY,
    told_at timestamptz NOT NULL
);
"""


def upgrade() -> None:
    op.execute(UPGRADE)
