"""What set a timer is kept with it, so that what it causes can be followed back."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE timer ADD COLUMN correlation_id uuid,"
        " ADD COLUMN causation_id uuid, ADD COLUMN traceparent text"
    )
