"""In which country a laboratory takes orders."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE order_destination ADD COLUMN country text")
