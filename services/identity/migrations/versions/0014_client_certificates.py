"""OAuth2 clients may show a certificate in place of sending a secret (RFC 8705)."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE client ADD COLUMN certificate jsonb")
