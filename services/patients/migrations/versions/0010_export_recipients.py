"""To whom outside the network an export is handed."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE patient_export ADD COLUMN recipient text")
