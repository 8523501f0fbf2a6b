"""Dead letters: attempts, redrive runs, corrected copies, discards that wait for a second person."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

KEPT = """
ALTER TABLE held
    ADD COLUMN place bigint,
    ADD COLUMN root_event_id uuid,
    ADD COLUMN corrects bigint,
    ADD COLUMN superseded_by bigint,
    ADD COLUMN run_id uuid,
    ADD COLUMN settled_at timestamptz;

CREATE TABLE held_attempt (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    held_id bigint NOT NULL,
    event_id uuid NOT NULL,
    attempted_at timestamptz NOT NULL,
    duration_ms integer,
    outcome text NOT NULL CHECK (outcome IN ('failed', 'applied', 'duplicate')),
    cause text,
    error text,
    release text NOT NULL,
    run_id uuid
);
CREATE INDEX held_attempt_of ON held_attempt (held_id, id);
CREATE INDEX held_attempt_age ON held_attempt (attempted_at);
"""

RUNS = """
CREATE TABLE redrive_run (
    run_id uuid PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('running', 'finished', 'cancelled')),
    cause text,
    total integer NOT NULL,
    rate_per_second integer NOT NULL CHECK (rate_per_second > 0),
    reason text,
    requested_by uuid NOT NULL,
    requested_at timestamptz NOT NULL,
    next_item_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    cancelled_by uuid,
    finished_at timestamptz
);
CREATE INDEX redrive_run_going ON redrive_run (next_item_at) WHERE state = 'running';

CREATE TABLE redrive_item (
    run_id uuid NOT NULL REFERENCES redrive_run ON DELETE CASCADE,
    held_id bigint NOT NULL,
    place bigint NOT NULL,
    event_id uuid NOT NULL,
    partition_key uuid NOT NULL,
    state text NOT NULL DEFAULT 'waiting'
        CHECK (state IN ('waiting', 'applied', 'duplicate', 'failed', 'skipped', 'cancelled')),
    error text,
    settled_at timestamptz,
    PRIMARY KEY (run_id, held_id)
);
CREATE INDEX redrive_item_next ON redrive_item (run_id, place, held_id) WHERE state = 'waiting';
CREATE INDEX redrive_item_key ON redrive_item (run_id, partition_key);
CREATE INDEX redrive_item_of ON redrive_item (held_id);
"""

DECISIONS = """
CREATE TABLE dead_letter_decision (
    decision_id uuid PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('pending', 'approved', 'rejected')),
    held_ids bigint[] NOT NULL,
    cause text,
    reason text NOT NULL,
    requested_by uuid NOT NULL,
    requested_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    decided_by uuid,
    decided_at timestamptz,
    decision_reason text,
    CONSTRAINT decided_by_another CHECK (decided_by IS NULL OR state = 'rejected' OR decided_by <> requested_by)
);
CREATE INDEX dead_letter_decision_open ON dead_letter_decision (expires_at) WHERE state = 'pending';
"""


NEIGHBOURS = "CREATE INDEX CONCURRENTLY IF NOT EXISTS held_of_key ON held (partition_key)"


def upgrade() -> None:
    for statements in (KEPT, RUNS, DECISIONS):
        op.execute(statements)
    with op.get_context().autocommit_block():
        op.execute(NEIGHBOURS)
