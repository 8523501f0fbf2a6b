"""Replays asked for and served, rebuilds of read models, and state events in the log."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# What a state event carries on: the id of the event that stood in a partition which was dropped.
CARRIED = "ALTER TABLE event ADD COLUMN carries uuid;"

SERVED = """
CREATE TABLE replay_job (
    replay_id uuid PRIMARY KEY,
    consumer text NOT NULL,
    purpose text NOT NULL CHECK (purpose IN ('rebuild', 'resend', 'count')),
    event_types text[] NOT NULL,
    first_id uuid NOT NULL,
    end_id uuid,
    subject uuid,
    keep_origin boolean NOT NULL,
    events_per_second integer,
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'complete', 'cancelled')),
    high_water_id uuid,
    total bigint,
    cursor_id uuid,
    event_count bigint NOT NULL DEFAULT 0,
    checksum numeric NOT NULL DEFAULT 0,
    requested_at timestamptz NOT NULL,
    begun_at timestamptz,
    finished_at timestamptz,
    correlation_id uuid NOT NULL
);
CREATE INDEX replay_job_running ON replay_job (requested_at) WHERE state = 'running';
"""

ASKED = """
CREATE TABLE replay_request (
    replay_id uuid PRIMARY KEY,
    purpose text NOT NULL,
    event_types text[] NOT NULL,
    from_at timestamptz,
    until_at timestamptz,
    subject uuid,
    keep_origin boolean NOT NULL,
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'complete', 'cancelled')),
    requested_at timestamptz NOT NULL,
    requested_by uuid,
    finished_at timestamptz
);
CREATE INDEX replay_request_newest ON replay_request (requested_at);
CREATE TABLE replay_part (
    replay_id uuid NOT NULL,
    producer text NOT NULL,
    event_count bigint,
    checksum text,
    high_water_id uuid,
    completed_at timestamptz,
    PRIMARY KEY (replay_id, producer)
);
-- What came of a replay into the shadow copy. A batch that comes twice replaces itself.
CREATE TABLE replay_batch (
    replay_id uuid NOT NULL,
    producer text NOT NULL,
    after_id uuid NOT NULL,
    event_count integer NOT NULL,
    skipped_count integer NOT NULL,
    checksum numeric NOT NULL,
    PRIMARY KEY (replay_id, producer, after_id)
);
"""

REBUILDS = """
CREATE TABLE rebuild (
    rebuild_id uuid PRIMARY KEY,
    state text NOT NULL CHECK (state IN (
        'requested', 'filling', 'comparing', 'swapped', 'compared', 'done', 'rolled-back', 'cancelled', 'failed'
    )),
    compare_only boolean NOT NULL,
    requested_at timestamptz NOT NULL,
    requested_by uuid,
    begun_at timestamptz,
    filled_at timestamptz,
    finished_at timestamptz,
    event_count bigint,
    difference_count bigint,
    differences jsonb,
    checksum text,
    failure text
);
CREATE UNIQUE INDEX rebuild_one_at_a_time ON rebuild ((true))
    WHERE state IN ('requested', 'filling', 'comparing');
CREATE UNIQUE INDEX rebuild_one_to_roll_back ON rebuild ((true)) WHERE state = 'swapped';

-- Keeps a swap out while an event takes effect, and says which other copies must get the event too.
-- A function, since the look must come after the lock: one statement has one snapshot, but here
-- each has its own.
CREATE FUNCTION read_model_gate() RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(202469888);
    RETURN ARRAY(
        SELECT DISTINCT CASE state WHEN 'swapped' THEN 'previous' ELSE 'shadow' END FROM rebuild
        WHERE state IN ('filling', 'comparing', 'swapped')
    );
END $$;
"""


def upgrade() -> None:
    for statements in (CARRIED, SERVED, ASKED, REBUILDS):
        op.execute(statements)
