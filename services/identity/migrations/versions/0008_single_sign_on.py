"""Logins at the operator's own identity provider: those under way, and whose account belongs to whom there."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

SINGLE_SIGN_ON = """
CREATE TABLE external_login (
    issuer text NOT NULL,
    subject text NOT NULL,
    account_id uuid NOT NULL REFERENCES account,
    linked_at timestamptz NOT NULL,
    PRIMARY KEY (issuer, subject),
    CONSTRAINT external_login_once UNIQUE (account_id, issuer)
);

CREATE TABLE external_login_attempt (
    state_digest bytea PRIMARY KEY,
    browser_digest bytea NOT NULL,
    nonce text NOT NULL,
    verifier text NOT NULL,
    link_digest bytea,
    expires_at timestamptz NOT NULL
);
"""


def upgrade() -> None:
    op.execute(SINGLE_SIGN_ON)
