"""What was received from outside can be decided about: when it became durable and was answered, and what followed.

Expand only: to the release before, an item that was set aside is one that it has processed.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

UPGRADE = """
ALTER TABLE intake
    ADD COLUMN durable_at timestamptz,
    ADD COLUMN cause text,
    ADD COLUMN set_aside text,
    ADD COLUMN corrects uuid,
    ADD COLUMN superseded_by uuid;
-- Set apart from the column, so that the rows there are keep null: nobody knows when that was.
ALTER TABLE intake ALTER COLUMN durable_at SET DEFAULT clock_timestamp();

CREATE TABLE intake_history (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    intake_id uuid NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    step text NOT NULL,
    error text,
    decided_by uuid,
    reason text,
    other_id uuid
);
CREATE INDEX intake_history_of ON intake_history (intake_id, id);

CREATE TABLE intake_decision (
    decision_id uuid PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('pending', 'approved', 'rejected')),
    intake_ids uuid[] NOT NULL,
    cause text,
    reason text NOT NULL,
    requested_by uuid NOT NULL,
    requested_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    decided_by uuid,
    decided_at timestamptz,
    decision_reason text
);
"""


def upgrade() -> None:
    op.execute(UPGRADE)
