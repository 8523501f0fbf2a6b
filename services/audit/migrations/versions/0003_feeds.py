"""How far the log was handed on to audit repositories elsewhere."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE TABLE feed (name text PRIMARY KEY, next_index bigint NOT NULL)")
