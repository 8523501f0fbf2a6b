"""Facts of the other services' aggregates, and the audit log's checkpoints as they were seen here."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ORGANISATION = """
CREATE TABLE centre (
    centre_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    name text NOT NULL,
    time_zone text NOT NULL,
    status text NOT NULL,
    occurred_at timestamptz NOT NULL
);
CREATE TABLE department (
    department_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    centre_id uuid NOT NULL,
    name text NOT NULL,
    status text NOT NULL,
    occurred_at timestamptz NOT NULL
);
CREATE TABLE staff_member (
    staff_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    department_ids uuid[] NOT NULL,
    practitioner boolean NOT NULL,
    active boolean NOT NULL,
    occurred_at timestamptz NOT NULL
);
CREATE TABLE service (
    service_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    code text NOT NULL,
    name text NOT NULL,
    status text NOT NULL,
    occurred_at timestamptz NOT NULL
);
"""

VISITS = """
CREATE TABLE appointment_fact (
    appointment_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    status text NOT NULL,
    centre_id uuid NOT NULL,
    department_id uuid NOT NULL,
    service_code text NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    occurred_at timestamptz NOT NULL
);
-- What a report reads of it, so that a period of a large table is an index scan.
CREATE INDEX appointment_fact_period ON appointment_fact (centre_id, starts_at)
    INCLUDE (department_id, service_code, status, ends_at);
CREATE INDEX appointment_fact_newest ON appointment_fact (occurred_at);
CREATE TABLE referral_fact (
    referral_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    status text NOT NULL,
    from_centre_id uuid NOT NULL,
    from_department_id uuid NOT NULL,
    to_centre_id uuid NOT NULL,
    to_department_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    accepted_at timestamptz,
    declined_at timestamptz,
    booked_at timestamptz,
    seen_at timestamptz,
    reported_at timestamptz,
    closed_at timestamptz,
    occurred_at timestamptz NOT NULL
);
CREATE INDEX referral_fact_period ON referral_fact (from_centre_id, created_at);
CREATE INDEX referral_fact_newest ON referral_fact (occurred_at);
CREATE TABLE encounter_fact (
    encounter_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    status text NOT NULL,
    centre_id uuid NOT NULL,
    department_id uuid NOT NULL,
    started_at timestamptz NOT NULL,
    occurred_at timestamptz NOT NULL
);
CREATE INDEX encounter_fact_period ON encounter_fact (centre_id, started_at);
CREATE INDEX encounter_fact_newest ON encounter_fact (occurred_at);
CREATE TABLE prescription_fact (
    prescription_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    status text NOT NULL,
    centre_id uuid NOT NULL,
    department_id uuid NOT NULL,
    issued_at timestamptz NOT NULL,
    occurred_at timestamptz NOT NULL
);
CREATE INDEX prescription_fact_period ON prescription_fact (centre_id, issued_at);
CREATE INDEX prescription_fact_newest ON prescription_fact (occurred_at);
"""

PATIENTS = """
-- The id alone, because a registration is one patient and is counted once; nothing that tells who it is.
CREATE TABLE registration_fact (
    patient_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    status text NOT NULL,
    centre_id uuid,
    registered_at timestamptz NOT NULL,
    occurred_at timestamptz NOT NULL
);
CREATE INDEX registration_fact_period ON registration_fact (centre_id, registered_at);
CREATE INDEX registration_fact_newest ON registration_fact (occurred_at);
CREATE TABLE consent_fact (
    consent_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    status text NOT NULL,
    kind text NOT NULL,
    changed_at timestamptz NOT NULL,
    occurred_at timestamptz NOT NULL
);
CREATE INDEX consent_fact_period ON consent_fact (changed_at);
CREATE INDEX consent_fact_newest ON consent_fact (occurred_at);
CREATE TABLE message_fact (
    message_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    status text NOT NULL,
    channel text NOT NULL,
    purpose text NOT NULL,
    centre_id uuid,
    department_id uuid,
    queued_at timestamptz NOT NULL,
    occurred_at timestamptz NOT NULL
);
CREATE INDEX message_fact_period ON message_fact (centre_id, queued_at);
CREATE INDEX message_fact_newest ON message_fact (occurred_at);
"""

LABORATORY = """
CREATE TABLE lab_order_fact (
    lab_order_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    status text NOT NULL,
    centre_id uuid NOT NULL,
    department_id uuid NOT NULL,
    placed_at timestamptz NOT NULL,
    occurred_at timestamptz NOT NULL
);
CREATE INDEX lab_order_fact_period ON lab_order_fact (centre_id, placed_at);
CREATE INDEX lab_order_fact_newest ON lab_order_fact (occurred_at);
CREATE TABLE lab_result_fact (
    result_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    status text NOT NULL,
    centre_id uuid,
    department_id uuid,
    lab_order_id uuid,
    critical_count integer NOT NULL,
    occurred_at timestamptz NOT NULL
);
CREATE INDEX lab_result_fact_newest ON lab_result_fact (occurred_at);
-- When a result was first received and first filed: the earliest of all its versions, which the
-- newest version no longer tells.
CREATE TABLE lab_milestone (
    result_id uuid NOT NULL,
    milestone text NOT NULL CHECK (milestone IN ('received', 'filed')),
    reached_at timestamptz NOT NULL,
    PRIMARY KEY (result_id, milestone)
);
CREATE INDEX lab_milestone_period ON lab_milestone (milestone, reached_at);
CREATE TABLE critical_result_fact (
    obligation_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    status text NOT NULL,
    centre_id uuid,
    department_id uuid,
    raised_at timestamptz NOT NULL,
    occurred_at timestamptz NOT NULL
);
CREATE INDEX critical_result_fact_period ON critical_result_fact (centre_id, raised_at);
CREATE INDEX critical_result_fact_newest ON critical_result_fact (occurred_at);
"""

MONEY = """
CREATE TABLE invoice_fact (
    invoice_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    centre_id uuid NOT NULL,
    department_id uuid,
    currency text NOT NULL,
    total_minor bigint NOT NULL,
    issued_at timestamptz NOT NULL,
    occurred_at timestamptz NOT NULL
);
CREATE INDEX invoice_fact_period ON invoice_fact (centre_id, issued_at);
CREATE INDEX invoice_fact_newest ON invoice_fact (occurred_at);
CREATE TABLE payment_fact (
    payment_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    centre_id uuid NOT NULL,
    department_id uuid,
    currency text NOT NULL,
    amount_minor bigint NOT NULL,
    received_at timestamptz NOT NULL,
    occurred_at timestamptz NOT NULL
);
CREATE INDEX payment_fact_period ON payment_fact (centre_id, received_at);
CREATE INDEX payment_fact_newest ON payment_fact (occurred_at);
CREATE TABLE refund_fact (
    refund_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    centre_id uuid NOT NULL,
    department_id uuid,
    currency text NOT NULL,
    amount_minor bigint NOT NULL,
    refunded_at timestamptz NOT NULL,
    occurred_at timestamptz NOT NULL
);
CREATE INDEX refund_fact_period ON refund_fact (centre_id, refunded_at);
CREATE INDEX refund_fact_newest ON refund_fact (occurred_at);
"""

WITNESS = """
-- The root hash is part of the key: a second checkpoint of the same id with another root is evidence
-- of a rewritten log, and must not replace or be hidden by the first.
CREATE TABLE checkpoint_witness (
    checkpoint_id uuid NOT NULL,
    root_hash text NOT NULL,
    log_origin text NOT NULL,
    tree_size bigint NOT NULL,
    key_id text NOT NULL,
    algorithm text NOT NULL,
    signature text NOT NULL,
    signed_at timestamptz NOT NULL,
    witnessed_at timestamptz NOT NULL,
    PRIMARY KEY (checkpoint_id, root_hash)
);
CREATE INDEX checkpoint_witness_size ON checkpoint_witness (log_origin, tree_size);
"""


def upgrade() -> None:
    for statements in (ORGANISATION, VISITS, PATIENTS, LABORATORY, MONEY, WITNESS):
        op.execute(statements)
