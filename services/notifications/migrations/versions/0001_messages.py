"""Messages, templates, preferences, vendors' statuses; projections of others."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

PROJECTIONS = """
CREATE TABLE centre (
    centre_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    name text NOT NULL,
    address text,
    phone text,
    time_zone text NOT NULL,
    language text NOT NULL
);
CREATE TABLE department (
    department_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    name text NOT NULL
);
CREATE TABLE patient (
    patient_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    status text NOT NULL,
    phones text[] NOT NULL,
    emails text[] NOT NULL,
    language text
);
CREATE TABLE consent (
    consent_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    patient_id uuid NOT NULL,
    kind text NOT NULL,
    status text NOT NULL,
    channel text,
    expires_at timestamptz
);
CREATE INDEX consent_patient ON consent (patient_id, kind);
CREATE TABLE appointment (
    appointment_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    status text NOT NULL,
    patient_id uuid NOT NULL,
    centre_id uuid NOT NULL,
    department_id uuid NOT NULL,
    starts_at timestamptz NOT NULL,
    time_zone text NOT NULL,
    service_name text
);
"""

TEMPLATES_AND_PREFERENCES = """
CREATE TABLE preference (
    patient_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    channels text[] NOT NULL,
    opted_out text[] NOT NULL,
    changed_at timestamptz NOT NULL
);
-- A change is a new row, so that a message keeps the very wording it was sent with.
CREATE TABLE template (
    template_id uuid PRIMARY KEY,
    code text NOT NULL,
    language text NOT NULL,
    channel text NOT NULL CHECK (channel IN ('whatsapp', 'sms', 'email')),
    department_id uuid,
    version bigint NOT NULL,
    subject text,
    body text NOT NULL,
    vendor_name text,
    changed_at timestamptz NOT NULL,
    CHECK ((subject IS NOT NULL) = (channel = 'email')),
    CHECK ((vendor_name IS NOT NULL) = (channel = 'whatsapp')),
    CONSTRAINT template_version_once
        UNIQUE NULLS NOT DISTINCT (code, channel, language, department_id, version)
);
"""

MESSAGES = """
CREATE TABLE message (
    message_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    status text NOT NULL
        CHECK (status IN ('queued', 'sent', 'delivered', 'read', 'failed', 'cancelled', 'expired')),
    patient_id uuid NOT NULL,
    channel text NOT NULL,
    purpose text NOT NULL,
    language text NOT NULL,
    centre_id uuid,
    department_id uuid,
    about_type text NOT NULL,
    about_id uuid NOT NULL,
    about_version bigint NOT NULL,
    occurrence text NOT NULL,
    step smallint NOT NULL,
    facts jsonb NOT NULL,
    template_id uuid REFERENCES template,
    recipient text,
    text text,
    queued_at timestamptz NOT NULL,
    send_at timestamptz NOT NULL,
    useful_until_at timestamptz,
    sent_at timestamptz,
    delivered_at timestamptz,
    read_at timestamptz,
    failed_at timestamptz,
    failure_code text,
    provider text,
    provider_reference text,
    attempts integer NOT NULL DEFAULT 0,
    unknown_outcomes integer NOT NULL DEFAULT 0,
    call_open boolean NOT NULL DEFAULT false,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_error text,
    -- What makes it impossible to tell the same thing twice; `step` counts channels tried in turn.
    CONSTRAINT message_once UNIQUE (about_id, about_type, about_version, purpose, occurrence, step)
);
CREATE INDEX message_due ON message (next_attempt_at) WHERE status = 'queued';
CREATE INDEX message_patient ON message (patient_id, message_id);
CREATE INDEX message_reference ON message (provider, provider_reference)
    WHERE provider_reference IS NOT NULL;
-- Every status a vendor ever reported, once each; without a message until the reference is known.
CREATE TABLE delivery_status (
    provider text NOT NULL,
    provider_reference text NOT NULL,
    status text NOT NULL,
    message_id uuid REFERENCES message,
    failure_code text,
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (provider, provider_reference, status)
);
CREATE INDEX delivery_status_message ON delivery_status (message_id);
-- What patients wrote to the clinic's number, kept until it is acted on.
CREATE TABLE reply (
    provider text NOT NULL,
    provider_reference text NOT NULL,
    content jsonb NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (provider, provider_reference)
);
-- Messages to come are pending timers; these find a patient's, and one by its id.
CREATE INDEX timer_planned_patient ON timer ((payload ->> 'patient_id')) WHERE state = 'pending';
CREATE INDEX timer_planned_message ON timer ((payload ->> 'message_id')) WHERE state = 'pending';
"""


def upgrade() -> None:
    for statements in (PROJECTIONS, TEMPLATES_AND_PREFERENCES, MESSAGES):
        op.execute(statements)
