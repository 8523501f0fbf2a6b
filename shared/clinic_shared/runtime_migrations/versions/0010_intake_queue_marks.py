"""Which processes have put something on the queue of the intake that may still be there: rows wait for it.

Expand only: the release before makes no marks, and its worker waits as long as it ever did.
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE intake_queue_mark (
    mark_id uuid PRIMARY KEY,
    marked_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""


def upgrade() -> None:
    op.execute(UPGRADE)
