"""Which worker empties the intake's queue, until it says that it has nothing of it in its hands any more.

Expand only: the workers of the release before neither read nor write it.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE intake_custody (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    holder uuid
);
"""


def upgrade() -> None:
    op.execute(UPGRADE)
