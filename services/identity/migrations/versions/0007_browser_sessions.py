"""Cookies of browsers: each stands for a session."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

BROWSER_SESSIONS = """
CREATE TABLE browser_session (
    session_id uuid PRIMARY KEY REFERENCES session ON DELETE CASCADE,
    digest bytea NOT NULL CONSTRAINT browser_session_once UNIQUE,
    renewed_at timestamptz NOT NULL
);
"""


def upgrade() -> None:
    op.execute(BROWSER_SESSIONS)
