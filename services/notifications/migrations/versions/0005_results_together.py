"""Results that are told in one message: which ones joined it."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

JOINED = """
-- What else a message tells of. The release before writes a message for each, which is as right.
CREATE TABLE joined_subject (
    about_id uuid NOT NULL,
    about_type text NOT NULL,
    about_version bigint NOT NULL,
    purpose text NOT NULL,
    message_id uuid NOT NULL REFERENCES message,
    joined_at timestamptz NOT NULL,
    PRIMARY KEY (about_id, about_type, about_version, purpose)
);
CREATE INDEX joined_subject_message ON joined_subject (message_id);
"""


def upgrade() -> None:
    op.execute(JOINED)
