"""Fiscal receipts: the database makes one owed for each movement of money in roubles."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

RECEIPTS = """
CREATE TABLE receipt (
    receipt_id uuid PRIMARY KEY REFERENCES ledger_movement,
    version bigint NOT NULL DEFAULT 1,
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'sent', 'done', 'failed')),
    operation text
        CHECK (operation IN ('sell', 'sell-refund', 'sell-correction', 'sell-refund-correction')),
    document jsonb,
    total_minor bigint CHECK (total_minor > 0),
    invoice_id uuid,
    payment_id uuid,
    patient_id uuid,
    legal_entity_id uuid NOT NULL,
    owed_at timestamptz NOT NULL,
    -- Counts up only after the registrar has said that the one before it failed.
    submission integer NOT NULL DEFAULT 1,
    reference text,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_error text,
    overdue_at timestamptz,
    fiscal_storage text,
    shift_number integer,
    receipt_number integer,
    document_number text,
    document_sign text,
    registered_at timestamptz,
    CONSTRAINT receipt_done_is_registered CHECK (status <> 'done' OR document_sign IS NOT NULL),
    CONSTRAINT receipt_fiscal_once UNIQUE (fiscal_storage, document_number)
);
CREATE INDEX receipt_due ON receipt (next_attempt_at) WHERE status IN ('pending', 'sent');
CREATE INDEX receipt_open ON receipt (owed_at) WHERE status <> 'done';
CREATE INDEX receipt_patient ON receipt (patient_id, receipt_id);
CREATE INDEX receipt_payment ON receipt (payment_id);

-- 54-FZ is about roubles. Whatever code books the movement, this release's or another's, owes the receipt.
CREATE FUNCTION receipt_owed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO receipt (receipt_id, legal_entity_id, owed_at)
    SELECT movement_id, legal_entity_id, booked_at FROM ledger_movement
    WHERE movement_id = NEW.movement_id
      AND kind IN ('payment-received', 'payment-refunded', 'advance-applied')
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER receipt_owed AFTER INSERT ON ledger_entry
    FOR EACH ROW WHEN (NEW.currency = 'RUB') EXECUTE FUNCTION receipt_owed();

CREATE FUNCTION receipt_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a receipt is owed until it is registered, and kept then'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'receipt_stays';
END $$;
CREATE TRIGGER receipt_stays BEFORE DELETE OR TRUNCATE ON receipt
    FOR EACH STATEMENT EXECUTE FUNCTION receipt_stays();
CREATE TRIGGER receipt_registered_stays BEFORE UPDATE ON receipt
    FOR EACH ROW WHEN (OLD.status = 'done') EXECUTE FUNCTION receipt_stays();

CREATE TABLE fiscal_profile (
    legal_entity_id uuid PRIMARY KEY,
    inn text NOT NULL CHECK (inn ~ '^[0-9]{10}([0-9]{2})?$'),
    taxation text NOT NULL,
    email text NOT NULL,
    payment_address text NOT NULL,
    group_code text NOT NULL
);
ALTER TABLE payment ADD COLUMN receipt_contact text;
"""


def upgrade() -> None:
    op.execute(RECEIPTS)
