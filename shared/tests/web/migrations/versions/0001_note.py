"""One table, with a constraint that speaks up only at commit."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE note (
            note_id uuid PRIMARY KEY,
            text text NOT NULL,
            version bigint NOT NULL DEFAULT 1,
            CONSTRAINT note_text_once UNIQUE (text) DEFERRABLE INITIALLY DEFERRED
        )
        """
    )
