"""Prices, charge items, invoices, payments and refunds, the ledger of money, the provider's messages."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

PROJECTIONS = """
CREATE TABLE centre (
    centre_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    legal_entity_id uuid NOT NULL,
    legal_entity_name text NOT NULL,
    currency text NOT NULL,
    time_zone text NOT NULL,
    active boolean NOT NULL
);
CREATE TABLE department (
    department_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    centre_id uuid NOT NULL,
    name text NOT NULL,
    active boolean NOT NULL
);
CREATE TABLE patient (
    patient_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    active boolean NOT NULL
);
CREATE TABLE service (
    service_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    code text NOT NULL,
    name text NOT NULL,
    active boolean NOT NULL
);
CREATE INDEX service_code ON service (code);
"""

PRICES = """
-- At every date at most one price of a thing at a centre.
CREATE TABLE price (
    price_id uuid PRIMARY KEY,
    centre_id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('service', 'lab-test')),
    service_code text NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor >= 0),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    valid daterange NOT NULL CHECK (NOT isempty(valid) AND NOT lower_inf(valid)),
    set_at timestamptz NOT NULL,
    CONSTRAINT price_one_at_a_time
        EXCLUDE USING gist (centre_id WITH =, kind WITH =, service_code WITH =, valid WITH &&)
);
"""

INVOICES = """
-- FHIR R4 ChargeItem: a visit that took place and must end up on an invoice, priced or not.
CREATE TABLE charge_item (
    appointment_id uuid PRIMARY KEY,
    patient_id uuid NOT NULL,
    centre_id uuid NOT NULL,
    department_id uuid NOT NULL,
    service_code text NOT NULL,
    rendered_on date NOT NULL,
    status text NOT NULL CHECK (status IN ('billable', 'billed', 'not-billable')),
    recorded_at timestamptz NOT NULL
);
CREATE INDEX charge_item_billable ON charge_item (appointment_id) WHERE status = 'billable';
CREATE INDEX charge_item_billable_centre ON charge_item (centre_id, appointment_id) WHERE status = 'billable';

CREATE TABLE invoice_number (
    legal_entity_id uuid NOT NULL,
    year smallint NOT NULL,
    last integer NOT NULL,
    PRIMARY KEY (legal_entity_id, year)
);
CREATE TABLE invoice (
    invoice_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    number text NOT NULL,
    status text NOT NULL CHECK (status IN ('issued', 'partly-paid', 'paid', 'cancelled')),
    patient_id uuid NOT NULL,
    appointment_id uuid,
    lab_order_id uuid,
    centre_id uuid NOT NULL,
    department_id uuid NOT NULL,
    legal_entity_id uuid NOT NULL,
    currency text NOT NULL,
    total_minor bigint NOT NULL CHECK (total_minor >= 0),
    paid_minor bigint NOT NULL CHECK (paid_minor >= 0),
    issued_at timestamptz NOT NULL,
    due_on date NOT NULL,
    attention text,
    CHECK (num_nonnulls(appointment_id, lab_order_id) = 1),
    CONSTRAINT invoice_number_once UNIQUE (legal_entity_id, number),
    CONSTRAINT invoice_appointment_once UNIQUE (appointment_id),
    CONSTRAINT invoice_lab_order_once UNIQUE (lab_order_id)
);
CREATE INDEX invoice_patient ON invoice (patient_id, invoice_id);
CREATE INDEX invoice_centre ON invoice (centre_id, invoice_id);
CREATE INDEX invoice_department ON invoice (department_id, invoice_id);
CREATE TABLE invoice_line (
    invoice_id uuid NOT NULL REFERENCES invoice,
    position smallint NOT NULL,
    service_code text NOT NULL,
    quantity integer NOT NULL CHECK (quantity > 0),
    unit_amount_minor bigint NOT NULL CHECK (unit_amount_minor >= 0),
    amount_minor bigint NOT NULL CHECK (amount_minor = quantity * unit_amount_minor),
    PRIMARY KEY (invoice_id, position)
);
"""

PAYMENTS = """
CREATE TABLE payment (
    payment_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    status text NOT NULL
        CHECK (status IN ('pending', 'succeeded', 'failed', 'cancelled', 'partly-refunded', 'refunded')),
    invoice_id uuid NOT NULL REFERENCES invoice,
    patient_id uuid NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    currency text NOT NULL,
    provider text NOT NULL,
    provider_reference text,
    client_secret text,
    refunded_minor bigint NOT NULL CHECK (refunded_minor >= 0),
    refunding_minor bigint NOT NULL CHECK (refunding_minor >= 0),
    failure_code text,
    requested_at timestamptz NOT NULL,
    received_at timestamptz,
    CONSTRAINT payment_reference_once UNIQUE (provider, provider_reference),
    -- What was refunded and what is being refunded never exceed what was paid.
    CONSTRAINT payment_refunds_within CHECK (refunded_minor + refunding_minor <= amount_minor)
);
-- Two payments of one invoice at once would let a patient pay twice.
CREATE UNIQUE INDEX payment_pending_once ON payment (invoice_id) WHERE status = 'pending';
CREATE INDEX payment_invoice ON payment (invoice_id);
CREATE INDEX payment_patient ON payment (patient_id, payment_id);
CREATE TABLE refund (
    refund_id uuid PRIMARY KEY,
    payment_id uuid NOT NULL REFERENCES payment,
    status text NOT NULL CHECK (status IN ('pending', 'succeeded', 'failed')),
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    reason_code text NOT NULL,
    provider text NOT NULL,
    provider_reference text,
    failure_code text,
    requested_at timestamptz NOT NULL,
    refunded_at timestamptz,
    CONSTRAINT refund_reference_once UNIQUE (provider, provider_reference)
);
CREATE INDEX refund_payment ON refund (payment_id, refund_id);

-- Intent -> call with an idempotency key (the row's id) -> result.
CREATE TABLE provider_call (
    call_id uuid PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('create-intent', 'cancel-intent', 'create-refund')),
    subject_id uuid NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'answered', 'refused', 'unresolved')),
    attempts integer NOT NULL,
    requested_at timestamptz NOT NULL,
    next_attempt_at timestamptz NOT NULL,
    last_error text,
    CONSTRAINT provider_call_once UNIQUE (kind, subject_id)
);
CREATE INDEX provider_call_due ON provider_call (next_attempt_at) WHERE state = 'pending';
"""

LEDGER = """
CREATE TABLE ledger_movement (
    movement_id uuid PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('invoice-issued', 'payment-received', 'payment-refunded')),
    source_id uuid NOT NULL,
    legal_entity_id uuid NOT NULL,
    booked_at timestamptz NOT NULL,
    CONSTRAINT ledger_movement_once UNIQUE (kind, source_id)
);
CREATE TABLE ledger_entry (
    movement_id uuid NOT NULL REFERENCES ledger_movement,
    account text NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor <> 0),
    currency text NOT NULL,
    PRIMARY KEY (movement_id, account)
);
CREATE INDEX ledger_entry_account ON ledger_entry (account);

CREATE FUNCTION ledger_movement_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM ledger_entry WHERE movement_id = NEW.movement_id
               GROUP BY currency HAVING sum(amount_minor) <> 0) THEN
        RAISE EXCEPTION 'a movement of money must sum to zero'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_movement_balanced';
    END IF;
    RETURN NULL;
END $$;
-- Checked at commit, when all entries of the movement are there.
CREATE CONSTRAINT TRIGGER ledger_movement_balanced AFTER INSERT ON ledger_entry
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger_movement_balanced();

CREATE FUNCTION ledger_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is corrected by further movements'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_append_only';
END $$;
CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entry
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_append_only();
CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_movement
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_append_only();
"""

NOTIFICATIONS = """
-- The natural key of what a provider tells us: each event takes effect once, whatever bytes carry it.
CREATE TABLE provider_event (
    provider text NOT NULL,
    event_id text NOT NULL,
    intake_id uuid NOT NULL,
    PRIMARY KEY (provider, event_id)
);
-- What became of each notification that was answered.
CREATE TABLE notification (
    intake_id uuid PRIMARY KEY,
    provider text NOT NULL,
    event_id text NOT NULL,
    event_type text NOT NULL,
    disposition text NOT NULL CHECK (disposition IN ('applied', 'superseded', 'duplicate', 'rejected', 'discarded')),
    reason text,
    payment_id uuid,
    decided_at timestamptz NOT NULL
);
CREATE INDEX notification_payment ON notification (payment_id) WHERE payment_id IS NOT NULL;
"""


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS btree_gist")
    for statements in (PROJECTIONS, PRICES, INVOICES, PAYMENTS, LEDGER, NOTIFICATIONS):
        op.execute(statements)
