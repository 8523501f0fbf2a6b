"""Notifications wait until their payment has been read again; where a customer pays may be an address."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

REREADING = """
ALTER TABLE payment ADD COLUMN confirmation_url text;
ALTER TABLE notification ADD COLUMN claim text NOT NULL DEFAULT 'other';
ALTER TABLE notification ADD COLUMN payment_reference text;
ALTER TABLE notification ADD COLUMN error text;
-- What replaces it allows more.
-- squawk-ignore ban-drop-constraint
ALTER TABLE notification DROP CONSTRAINT notification_disposition_check;
ALTER TABLE notification ADD CONSTRAINT notification_disposition_check CHECK (disposition IN
    ('in-flight', 'applied', 'superseded', 'duplicate', 'rejected', 'parked', 'discarded')) NOT VALID;
-- What replaces it allows more.
-- squawk-ignore ban-drop-constraint
ALTER TABLE provider_call DROP CONSTRAINT provider_call_kind_check;
ALTER TABLE provider_call ADD CONSTRAINT provider_call_kind_check
    CHECK (kind IN ('create-intent', 'cancel-intent', 'create-refund', 'read-payment')) NOT VALID;
"""


def upgrade() -> None:
    op.execute(REREADING)
