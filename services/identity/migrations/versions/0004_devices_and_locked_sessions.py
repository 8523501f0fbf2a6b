"""Devices that logged in before, what a session was opened with, and PINs that unlock a shared workstation."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

DEVICES = """
CREATE TABLE known_device (
    device_id uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES account,
    digest bytea NOT NULL,
    first_seen_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    CONSTRAINT known_device_digest_once UNIQUE (digest)
);
CREATE INDEX known_device_account ON known_device (account_id);
CREATE INDEX known_device_age ON known_device (last_seen_at);

CREATE TABLE workstation_pin (
    account_id uuid PRIMARY KEY REFERENCES account,
    sealed_hash bytea NOT NULL,
    chosen_at timestamptz NOT NULL
);

ALTER TABLE session
    ADD COLUMN device_id uuid,
    ADD COLUMN address text,
    ADD COLUMN agent text,
    ADD COLUMN unlock_failures integer NOT NULL DEFAULT 0;
ALTER TABLE sign_in_ticket ADD COLUMN device_id uuid;
"""


def upgrade() -> None:
    op.execute(DEVICES)
