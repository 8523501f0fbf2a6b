"""Where the read model is rebuilt, and where it stays to be rolled back to."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for schema in ("shadow", "previous", "discarded"):
        op.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
