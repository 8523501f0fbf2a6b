"""Partners, orders, what became of each part of each message, results with their versions."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

PROJECTIONS = """
CREATE TABLE department (
    department_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    centre_id uuid NOT NULL,
    active boolean NOT NULL
);
CREATE TABLE practitioner (
    practitioner_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    department_ids uuid[] NOT NULL,
    active boolean NOT NULL
);
CREATE TABLE patient (
    patient_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    active boolean NOT NULL
);
-- Two patients may have the same identifier: then it matches neither, and a person decides.
CREATE TABLE patient_identifier (
    authority text NOT NULL,
    value text NOT NULL,
    patient_id uuid NOT NULL,
    PRIMARY KEY (authority, value, patient_id)
);
CREATE INDEX patient_identifier_patient ON patient_identifier (patient_id);
CREATE TABLE appointment (
    appointment_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    status text NOT NULL,
    patient_id uuid NOT NULL,
    centre_id uuid NOT NULL,
    department_id uuid NOT NULL
);
CREATE TABLE partner (
    partner_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    client_id text NOT NULL,
    name text NOT NULL,
    active boolean NOT NULL,
    secret_digests text[] NOT NULL
);
"""

OWN = """
CREATE TABLE partner_configuration (
    partner_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    enabled boolean NOT NULL,
    time_zone text,
    default_charset text,
    identifier_authorities jsonb NOT NULL,
    default_department_id uuid,
    critical_acknowledge_seconds integer NOT NULL CHECK (critical_acknowledge_seconds > 0),
    changed_at timestamptz NOT NULL
);
CREATE TABLE lab_order (
    lab_order_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    status text NOT NULL CHECK (status IN ('placed', 'partly-resulted', 'resulted', 'cancelled')),
    placer_order_number text NOT NULL,
    patient_id uuid NOT NULL,
    partner_id uuid NOT NULL,
    practitioner_id uuid NOT NULL,
    centre_id uuid NOT NULL,
    department_id uuid NOT NULL,
    appointment_id uuid,
    encounter_id uuid,
    referral_id uuid,
    priority text NOT NULL CHECK (priority IN ('routine', 'urgent', 'asap', 'stat')),
    tests jsonb NOT NULL,
    clinical_note text,
    placed_at timestamptz NOT NULL,
    CONSTRAINT placer_order_number_once UNIQUE (placer_order_number)
);
CREATE INDEX lab_order_patient ON lab_order (patient_id, lab_order_id);
"""

LEDGER = """
-- One row per patient group of a message: exactly one disposition at any time.
CREATE TABLE lab_unit (
    message_id uuid NOT NULL,
    group_index integer NOT NULL,
    partner_id uuid NOT NULL,
    disposition text NOT NULL CHECK (disposition IN
        ('in-flight', 'applied', 'parked', 'rejected', 'superseded', 'duplicate', 'discarded')),
    reason text,
    patient_id uuid,
    received_at timestamptz NOT NULL,
    settled_at timestamptz,
    decided_by uuid,
    decision_reason text,
    PRIMARY KEY (message_id, group_index),
    CONSTRAINT parked_with_a_reason CHECK (disposition <> 'parked' OR reason IS NOT NULL),
    CONSTRAINT discarded_with_a_reason CHECK (disposition <> 'discarded' OR decision_reason IS NOT NULL)
);
CREATE INDEX lab_unit_partner ON lab_unit (partner_id, message_id);
CREATE INDEX lab_unit_waiting ON lab_unit (message_id, group_index) WHERE disposition = 'parked';
CREATE TABLE unit_report (
    message_id uuid NOT NULL,
    group_index integer NOT NULL,
    report_index integer NOT NULL,
    disposition text NOT NULL CHECK (disposition IN ('in-flight', 'applied', 'parked', 'superseded')),
    reason text,
    result_id uuid,
    result_version bigint,
    filed_at timestamptz,
    PRIMARY KEY (message_id, group_index, report_index),
    FOREIGN KEY (message_id, group_index) REFERENCES lab_unit
);
-- What an unmatched group waits for: a patient's identifier, or one of our order numbers.
CREATE TABLE wanted_key (
    message_id uuid NOT NULL,
    group_index integer NOT NULL,
    authority text NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (message_id, group_index, authority, value),
    FOREIGN KEY (message_id, group_index) REFERENCES lab_unit
);
CREATE INDEX wanted_key_value ON wanted_key (authority, value);
CREATE TABLE incident (
    incident_id uuid PRIMARY KEY,
    kind text NOT NULL,
    state text NOT NULL CHECK (state IN ('open', 'settled')),
    partner_id uuid NOT NULL,
    message_id uuid NOT NULL,
    earlier_message_id uuid NOT NULL,
    owner_id uuid,
    raised_at timestamptz NOT NULL,
    settled_at timestamptz,
    note text,
    CONSTRAINT incident_once UNIQUE (kind, message_id)
);
"""

RESULTS = """
CREATE TABLE lab_result (
    result_id uuid PRIMARY KEY,
    partner_id uuid NOT NULL,
    patient_id uuid NOT NULL,
    report_key text NOT NULL,
    version bigint NOT NULL,
    status text NOT NULL,
    lab_order_id uuid,
    CONSTRAINT lab_result_once UNIQUE (partner_id, patient_id, report_key)
);
CREATE INDEX lab_result_patient ON lab_result (patient_id, result_id);
CREATE INDEX lab_result_order ON lab_result (lab_order_id) WHERE lab_order_id IS NOT NULL;
CREATE TABLE lab_result_version (
    result_id uuid NOT NULL REFERENCES lab_result,
    version bigint NOT NULL,
    status text NOT NULL,
    retraction_reason_code text,
    message_id uuid NOT NULL,
    group_index integer NOT NULL,
    report_index integer NOT NULL,
    placer_order_number text,
    filler_order_number text,
    code text,
    system text,
    display text,
    collected_at timestamptz,
    reported_at timestamptz,
    sent_at timestamptz,
    received_at timestamptz NOT NULL,
    observation_count integer NOT NULL,
    abnormal_count integer NOT NULL,
    critical_count integer NOT NULL,
    content jsonb,
    filed_at timestamptz,
    PRIMARY KEY (result_id, version)
);
CREATE TABLE critical_result (
    obligation_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    status text NOT NULL CHECK (status IN ('open', 'escalated', 'acknowledged')),
    result_id uuid NOT NULL,
    result_version bigint NOT NULL,
    patient_id uuid NOT NULL,
    raised_at timestamptz NOT NULL,
    acknowledge_by_at timestamptz NOT NULL,
    CONSTRAINT critical_result_once UNIQUE (result_id, result_version)
);
"""


def upgrade() -> None:
    for statements in (PROJECTIONS, OWN, LEDGER, RESULTS):
        op.execute(statements)
