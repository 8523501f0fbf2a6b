"""What lab-integration makes of an observation, beside what the laboratory wrote."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE observation ADD COLUMN meaning jsonb")
