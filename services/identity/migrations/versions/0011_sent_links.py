"""Links that are sent: what was asked for, and how far its message got."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

REQUEST = """
CREATE TABLE access_link_request (
    request_id uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES account,
    purpose text NOT NULL CHECK (purpose IN ('invitation', 'reset')),
    requested_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    attempt_version bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('requested', 'sending', 'undeliverable')),
    channel text,
    failure_code text
);
-- Of an account only the newest counts.
CREATE UNIQUE INDEX access_link_request_account ON access_link_request (account_id);
"""


def upgrade() -> None:
    op.execute(REQUEST)
