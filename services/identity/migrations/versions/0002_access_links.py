"""Links that work once: whoever opens one chooses the account's password."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ACCESS_LINK = """
CREATE TABLE access_link (
    digest bytea PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES account,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz
);
CREATE INDEX access_link_account ON access_link (account_id);
"""


def upgrade() -> None:
    op.execute(ACCESS_LINK)
