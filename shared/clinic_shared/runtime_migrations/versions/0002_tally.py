"""Counts of events published and applied, and what each worker has in hand: for metrics and the event flow."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TALLY = """
CREATE TABLE tally_delta (
    direction text NOT NULL,
    type text NOT NULL,
    event_hour integer NOT NULL,
    events integer NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

CREATE TABLE tally (
    direction text NOT NULL,
    type text NOT NULL,
    event_hour integer NOT NULL,
    events bigint NOT NULL,
    PRIMARY KEY (direction, type, event_hour)
);

CREATE TABLE tally_minute (
    direction text NOT NULL,
    type text NOT NULL,
    minute integer NOT NULL,
    events bigint NOT NULL,
    PRIMARY KEY (direction, type, minute)
);

CREATE TABLE worker_state (
    worker uuid NOT NULL,
    queue text NOT NULL,
    oldest_at timestamptz,
    messages integer,
    measured_at timestamptz NOT NULL,
    PRIMARY KEY (worker, queue)
);
"""


# What waits is asked for every few seconds; the table keeps all that ever came.
INTAKE_WAITING = """
CREATE INDEX CONCURRENTLY IF NOT EXISTS intake_waiting ON intake (state, received_at) WHERE state <> 'processed'
"""


def upgrade() -> None:
    op.execute(TALLY)
    with op.get_context().autocommit_block():
        op.execute(INTAKE_WAITING)
