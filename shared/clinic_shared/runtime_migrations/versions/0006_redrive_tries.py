"""Who works a redrive run off, and how often a message was taken: one that kills must not do so for ever."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE redrive_item ADD COLUMN tries integer NOT NULL DEFAULT 0")
    op.execute("ALTER TABLE redrive_run ADD COLUMN worker uuid, ADD COLUMN leased_until timestamptz")
