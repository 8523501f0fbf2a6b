"""Orders out: where each laboratory takes them, and how far each has come."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE order_destination (
            partner_id uuid PRIMARY KEY,
            version bigint NOT NULL,
            format text NOT NULL CHECK (format IN ('oml-o21', 'orm-o01', 'fhir')),
            url text NOT NULL,
            sending_application text NOT NULL,
            sending_facility text NOT NULL,
            receiving_application text NOT NULL,
            receiving_facility text NOT NULL,
            processing_id text NOT NULL CHECK (processing_id IN ('P', 'T', 'D')),
            changed_at timestamptz NOT NULL
        );
        -- Intent, then call, then result: a row is what is to be told to the laboratory, until it has answered.
        CREATE TABLE order_transmission (
            transmission_id uuid PRIMARY KEY,
            lab_order_id uuid NOT NULL REFERENCES lab_order,
            partner_id uuid NOT NULL,
            action text NOT NULL CHECK (action IN ('new', 'cancel')),
            state text NOT NULL CHECK (state IN ('pending', 'acknowledged', 'refused', 'withdrawn')),
            control_id text NOT NULL,
            attempts integer NOT NULL DEFAULT 0,
            requested_at timestamptz NOT NULL,
            next_attempt_at timestamptz NOT NULL,
            settled_at timestamptz,
            answer_code text,
            last_error text,
            CONSTRAINT told_once UNIQUE (lab_order_id, action)
        );
        CREATE INDEX order_transmission_due ON order_transmission (next_attempt_at) WHERE state = 'pending';
        ALTER TABLE lab_order
            ADD COLUMN cancelled_at timestamptz,
            ADD COLUMN cancelled_by uuid,
            ADD COLUMN cancellation_reason text;
        """
    )
