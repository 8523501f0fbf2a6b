"""Second factors, recovery codes, tickets between the two steps of a login, and how a session was opened."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

FACTORS = """
-- Secrets are sealed under a key that isn't in the database (secret_box.py).
CREATE TABLE second_factor (
    factor_id uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES account,
    kind text NOT NULL CHECK (kind IN ('totp', 'passkey')),
    label text NOT NULL,
    secret bytea,
    last_step bigint,
    credential_id bytea,
    public_key bytea,
    sign_count bigint,
    created_at timestamptz NOT NULL,
    -- Not yet a factor until its owner has shown that they hold it.
    confirmed_at timestamptz,
    last_used_at timestamptz,
    CHECK (CASE kind WHEN 'totp' THEN secret IS NOT NULL
        ELSE credential_id IS NOT NULL AND public_key IS NOT NULL AND sign_count IS NOT NULL END),
    CONSTRAINT second_factor_credential_once UNIQUE (credential_id)
);
CREATE INDEX second_factor_account ON second_factor (account_id);
CREATE UNIQUE INDEX second_factor_one_unconfirmed
    ON second_factor (account_id) WHERE kind = 'totp' AND confirmed_at IS NULL;

CREATE TABLE recovery_code (
    digest bytea PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES account,
    created_at timestamptz NOT NULL,
    used_at timestamptz
);
CREATE INDEX recovery_code_account ON recovery_code (account_id);

-- The right password was given; the second factor is still to come.
CREATE TABLE sign_in_ticket (
    digest bytea PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES account,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    failures integer NOT NULL,
    used_at timestamptz
);
CREATE INDEX sign_in_ticket_account ON sign_in_ticket (account_id);
CREATE INDEX sign_in_ticket_expiry ON sign_in_ticket (expires_at);

-- What a passkey is to sign: of one ticket or session, once.
CREATE TABLE passkey_challenge (
    holder bytea PRIMARY KEY,
    challenge bytea NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX passkey_challenge_expiry ON passkey_challenge (expires_at);

-- Somebody lost their factors: one person asks for the reset, another one decides.
CREATE TABLE factor_reset (
    reset_id uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES account,
    reason text NOT NULL,
    requested_by uuid NOT NULL,
    requested_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    decision text CHECK (decision IN ('approved', 'rejected')),
    decided_by uuid,
    decided_at timestamptz,
    CHECK ((decision IS NULL) = (decided_at IS NULL)),
    CHECK (decided_by IS NULL OR decided_by <> requested_by)
);
CREATE INDEX factor_reset_account ON factor_reset (account_id);
"""

COUNTERS = """
-- Takes the place of login_throttle, which knows two kinds only; the release before goes on counting there.
CREATE TABLE attempt_counter (
    kind text NOT NULL,
    subject bytea NOT NULL,
    failures integer NOT NULL,
    counted_from timestamptz NOT NULL,
    last_failure_at timestamptz NOT NULL,
    blocked_until timestamptz,
    PRIMARY KEY (kind, subject)
);
CREATE INDEX attempt_counter_age ON attempt_counter (last_failure_at);
"""

EXISTING = """
ALTER TABLE account
    ADD COLUMN second_factor_due_at timestamptz,
    ADD COLUMN enrolment_ends_at timestamptz;
ALTER TABLE session
    ADD COLUMN amr text[] NOT NULL DEFAULT '{pwd}',
    ADD COLUMN authenticated_at timestamptz;
"""


def upgrade() -> None:
    for statements in (FACTORS, COUNTERS, EXISTING):
        op.execute(statements)
