"""Codes by SMS, for patients: whose number is verified, and the codes under way."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

CODES = """
CREATE TABLE sms_factor (
    account_id uuid PRIMARY KEY REFERENCES account,
    sealed_number bytea NOT NULL,
    verified_at timestamptz NOT NULL
);
-- One for each login or session that asked: asking again replaces it.
CREATE TABLE one_time_code (
    holder bytea PRIMARY KEY,
    request_id uuid NOT NULL UNIQUE,
    account_id uuid NOT NULL REFERENCES account,
    sealed_key bytea NOT NULL,
    box bytea,
    box_version bigint NOT NULL,
    failures integer NOT NULL,
    expires_at timestamptz NOT NULL
);
"""


def upgrade() -> None:
    op.execute(CODES)
