"""OAuth2 clients may say where their keys are published, in place of handing them over."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE client ADD COLUMN jwks_url text")
