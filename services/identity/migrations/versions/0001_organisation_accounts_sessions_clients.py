"""Organisation, roles, accounts and staff, sessions, throttling, OAuth clients; patients as stubs."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ORGANISATION = """
CREATE TABLE legal_entity (
    legal_entity_id uuid PRIMARY KEY,
    name text NOT NULL,
    registered_at timestamptz NOT NULL,
    CONSTRAINT legal_entity_name_once UNIQUE (name)
);
CREATE TABLE centre (
    centre_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    code text NOT NULL,
    name text NOT NULL,
    legal_entity_id uuid NOT NULL REFERENCES legal_entity,
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    time_zone text NOT NULL,
    language text NOT NULL,
    address text,
    phone text,
    status text NOT NULL CHECK (status IN ('active', 'closed')),
    opened_at timestamptz NOT NULL,
    changed_at timestamptz,
    CONSTRAINT centre_code_once UNIQUE (code)
);
CREATE TABLE department (
    department_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    centre_id uuid NOT NULL REFERENCES centre,
    code text NOT NULL,
    name text NOT NULL,
    specialty text,
    status text NOT NULL CHECK (status IN ('active', 'closed')),
    opened_at timestamptz NOT NULL,
    changed_at timestamptz,
    closed_at timestamptz,
    CHECK ((status = 'closed') = (closed_at IS NOT NULL)),
    CONSTRAINT department_code_once UNIQUE (centre_id, code)
);
"""

PEOPLE = """
-- A copy of contracts/taxonomy/roles.yaml, refreshed at every start (roles.py).
CREATE TABLE role (
    code text PRIMARY KEY,
    taxonomy_version bigint NOT NULL,
    title text NOT NULL,
    principal text NOT NULL CHECK (principal IN ('staff', 'patient', 'client')),
    scopes text[] NOT NULL
);
CREATE TABLE patient (
    patient_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    active boolean NOT NULL
);
CREATE TABLE account (
    account_id uuid PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('staff', 'patient')),
    login text NOT NULL,
    password_hash text NOT NULL,
    -- An initial password works until then; one that its owner chose has no end.
    password_expires_at timestamptz,
    must_change_password boolean NOT NULL,
    active boolean NOT NULL,
    patient_id uuid,
    tokens_valid_from timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    CHECK ((kind = 'patient') = (patient_id IS NOT NULL)),
    CONSTRAINT account_login_once UNIQUE (login),
    CONSTRAINT account_patient_once UNIQUE (patient_id)
);
CREATE TABLE staff (
    staff_id uuid PRIMARY KEY REFERENCES account,
    version bigint NOT NULL,
    family text NOT NULL,
    given text,
    patronymic text,
    roles text[] NOT NULL,
    network boolean NOT NULL,
    centre_ids uuid[] NOT NULL,
    department_ids uuid[] NOT NULL,
    practitioner boolean NOT NULL,
    specialty text,
    active boolean NOT NULL,
    added_at timestamptz NOT NULL,
    moved_at timestamptz,
    deactivated_at timestamptz,
    CHECK (active = (deactivated_at IS NULL))
);
"""

SESSIONS = """
CREATE TABLE session (
    session_id uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES account,
    started_at timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at timestamptz,
    end_reason_code text,
    CHECK ((ended_at IS NULL) = (end_reason_code IS NULL))
);
CREATE INDEX session_live ON session (account_id) WHERE ended_at IS NULL;
CREATE INDEX session_expiry ON session (expires_at);

-- Every refresh token that a session ever had, so that a used one is recognised as stolen.
CREATE TABLE refresh_token (
    digest bytea PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES session ON DELETE CASCADE,
    issued_at timestamptz NOT NULL,
    used_at timestamptz
);
CREATE UNIQUE INDEX refresh_token_one_unused ON refresh_token (session_id) WHERE used_at IS NULL;

-- `subject` is a digest: people type passwords into the login field.
CREATE TABLE login_throttle (
    kind text NOT NULL CHECK (kind IN ('account', 'address')),
    subject bytea NOT NULL,
    failures integer NOT NULL,
    counted_from timestamptz NOT NULL,
    last_failure_at timestamptz NOT NULL,
    blocked_until timestamptz,
    PRIMARY KEY (kind, subject)
);
CREATE INDEX login_throttle_age ON login_throttle (last_failure_at);
"""

CLIENTS = """
CREATE TABLE client (
    id uuid PRIMARY KEY,
    version bigint NOT NULL,
    kind text NOT NULL CHECK (kind IN ('lab', 'app')),
    client_id text NOT NULL,
    name text NOT NULL,
    scopes text[] NOT NULL,
    network boolean NOT NULL,
    centre_ids uuid[] NOT NULL,
    secret_digest text NOT NULL,
    previous_secret_digest text,
    previous_secret_expires_at timestamptz,
    active boolean NOT NULL,
    registered_at timestamptz NOT NULL,
    changed_at timestamptz,
    tokens_valid_from timestamptz NOT NULL,
    CHECK ((previous_secret_digest IS NULL) = (previous_secret_expires_at IS NULL)),
    CONSTRAINT client_id_once UNIQUE (client_id)
);
"""


def upgrade() -> None:
    for statements in (ORGANISATION, PEOPLE, SESSIONS, CLIENTS):
        op.execute(statements)
