"""Reports that grew out of another: which one, by the laboratory's number."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE lab_result_version ADD COLUMN parent_filler_order_number text")
