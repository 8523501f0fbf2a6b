"""Money paid in advance and set off, second persons for refunds and write-offs, payments at a cash desk."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ADVANCES = """
ALTER TABLE invoice ADD COLUMN kind text NOT NULL DEFAULT 'services' CHECK (kind IN ('services', 'advance'));
ALTER TABLE invoice ADD COLUMN for_appointment_id uuid;
ALTER TABLE invoice ADD COLUMN applied_minor bigint NOT NULL DEFAULT 0 CHECK (applied_minor >= 0);
ALTER TABLE invoice ADD COLUMN written_off_minor bigint NOT NULL DEFAULT 0 CHECK (written_off_minor >= 0);
-- Advances are of neither a visit nor a lab order.
-- squawk-ignore ban-drop-constraint
ALTER TABLE invoice DROP CONSTRAINT invoice_check;
ALTER TABLE invoice ADD CONSTRAINT invoice_of_one_thing CHECK
    (num_nonnulls(appointment_id, lab_order_id) = CASE kind WHEN 'services' THEN 1 ELSE 0 END) NOT VALID;
-- What replaces it allows more.
-- squawk-ignore ban-drop-constraint
ALTER TABLE invoice DROP CONSTRAINT invoice_status_check;
ALTER TABLE invoice ADD CONSTRAINT invoice_status_check
    CHECK (status IN ('issued', 'partly-paid', 'paid', 'cancelled', 'written-off')) NOT VALID;

CREATE TABLE advance_application (
    application_id uuid PRIMARY KEY,
    advance_id uuid NOT NULL REFERENCES invoice,
    invoice_id uuid NOT NULL REFERENCES invoice,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    applied_at timestamptz NOT NULL
);
CREATE INDEX advance_application_advance ON advance_application (advance_id);
CREATE INDEX advance_application_invoice ON advance_application (invoice_id);
"""

FOUR_EYES = """
ALTER TABLE refund ADD COLUMN requested_by uuid;
ALTER TABLE refund ADD COLUMN decided_by uuid;
ALTER TABLE refund ADD COLUMN shift_id uuid;
ALTER TABLE refund ADD CONSTRAINT refund_four_eyes CHECK (decided_by <> requested_by) NOT VALID;
-- What replaces it allows more.
-- squawk-ignore ban-drop-constraint
ALTER TABLE refund DROP CONSTRAINT refund_status_check;
ALTER TABLE refund ADD CONSTRAINT refund_status_check
    CHECK (status IN ('awaiting-approval', 'pending', 'succeeded', 'failed')) NOT VALID;
CREATE TABLE write_off (
    write_off_id uuid PRIMARY KEY,
    invoice_id uuid NOT NULL REFERENCES invoice,
    status text NOT NULL CHECK (status IN ('awaiting-approval', 'booked', 'turned-down')),
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    reason_code text NOT NULL,
    requested_at timestamptz NOT NULL,
    requested_by uuid NOT NULL,
    decided_by uuid,
    decided_at timestamptz,
    CONSTRAINT write_off_four_eyes CHECK (decided_by <> requested_by)
);
CREATE INDEX write_off_invoice ON write_off (invoice_id);
"""

DESK = """
ALTER TABLE payment ADD COLUMN desk_id uuid;
ALTER TABLE payment ADD COLUMN shift_id uuid;
-- What replaces it allows more.
-- squawk-ignore ban-drop-constraint
ALTER TABLE ledger_movement DROP CONSTRAINT ledger_movement_kind_check;
ALTER TABLE ledger_movement ADD CONSTRAINT ledger_movement_kind_check CHECK (kind IN
    ('invoice-issued', 'payment-received', 'payment-refunded', 'advance-applied', 'written-off',
     'cash-in', 'cash-out', 'cash-difference')) NOT VALID;
"""


def upgrade() -> None:
    for statements in (ADVANCES, FOUR_EYES, DESK):
        op.execute(statements)
