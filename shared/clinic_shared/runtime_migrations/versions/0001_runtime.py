"""The runtime's tables: event log, outbox, inbox, held messages, timers, idempotency, intake."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

EVENT_LOG = """
CREATE TABLE event (
    event_id uuid NOT NULL PRIMARY KEY,
    type text NOT NULL,
    subject uuid NOT NULL,
    aggregate_version bigint NOT NULL,
    partition_key uuid NOT NULL,
    patient_id uuid,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    origin text NOT NULL,
    correlation_id uuid NOT NULL,
    causation_id uuid,
    traceparent text,
    data jsonb NOT NULL,
    private jsonb,
    seal text
) PARTITION BY RANGE (event_id);
CREATE TABLE event_default PARTITION OF event DEFAULT;
CREATE INDEX event_subject ON event (subject, event_id);
CREATE INDEX event_correlation ON event (correlation_id);
CREATE INDEX event_patient ON event (patient_id) WHERE patient_id IS NOT NULL;

CREATE TABLE inbox (
    consumer text NOT NULL,
    event_id uuid NOT NULL,
    processed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, event_id)
) PARTITION BY RANGE (event_id);
CREATE TABLE inbox_default PARTITION OF inbox DEFAULT;
"""

OUTBOX = """
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id uuid NOT NULL,
    partition_key uuid NOT NULL,
    shard smallint NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    last_error text
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
CREATE INDEX outbox_waiting ON outbox (partition_key) WHERE attempts > 0;

CREATE TABLE audit_outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    record bytea NOT NULL,
    leaf_hash bytea NOT NULL,
    pseq bigint
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

CREATE TABLE audit_producer (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    next_pseq bigint NOT NULL
);
INSERT INTO audit_producer (next_pseq) VALUES (0);

CREATE FUNCTION notify_outbox() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_notify('outbox', ''); RETURN NULL; END $$;
CREATE TRIGGER outbox_notify AFTER INSERT ON outbox
    FOR EACH STATEMENT EXECUTE FUNCTION notify_outbox();
CREATE TRIGGER audit_outbox_notify AFTER INSERT ON audit_outbox
    FOR EACH STATEMENT EXECUTE FUNCTION notify_outbox();
"""

HELD = """
CREATE TABLE held (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id uuid NOT NULL UNIQUE,
    partition_key uuid NOT NULL,
    type text NOT NULL,
    queue text NOT NULL,
    headers jsonb NOT NULL,
    body bytea NOT NULL,
    state text NOT NULL CHECK (state IN ('held', 'parked', 'discarded')),
    cause text NOT NULL,
    error text NOT NULL,
    attempt integer NOT NULL,
    next_attempt_at timestamptz,
    first_failed_at timestamptz NOT NULL,
    last_failed_at timestamptz NOT NULL,
    decided_by uuid,
    decided_at timestamptz,
    reason text
);
CREATE INDEX held_key ON held (partition_key, id) WHERE state = 'held';
CREATE INDEX held_due ON held (next_attempt_at) WHERE state = 'held';
CREATE INDEX held_cause ON held (state, cause);
"""

TIMER = """
CREATE TABLE timer (
    timer_id uuid PRIMARY KEY,
    kind text NOT NULL,
    subject uuid NOT NULL,
    subject_version bigint NOT NULL,
    occurrence text NOT NULL DEFAULT '',
    due_at timestamptz NOT NULL,
    useful_until timestamptz,
    payload jsonb NOT NULL,
    state text NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'done', 'cancelled', 'expired')),
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    finished_at timestamptz,
    last_error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT timer_once UNIQUE (kind, subject, subject_version, occurrence)
);
CREATE INDEX timer_due ON timer (next_attempt_at) WHERE state = 'pending';
CREATE INDEX timer_subject ON timer (subject) WHERE state = 'pending';
"""

REQUESTS = """
CREATE TABLE idempotency_key (
    principal text NOT NULL,
    route text NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    status smallint,
    headers jsonb,
    body bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (principal, route, key)
);
CREATE INDEX idempotency_key_age ON idempotency_key (created_at);

CREATE TABLE intake (
    id uuid PRIMARY KEY,
    interface text NOT NULL,
    sender text NOT NULL,
    digest bytea NOT NULL,
    content_type text NOT NULL,
    body bytea NOT NULL,
    attributes jsonb NOT NULL,
    answer bytea,
    answer_type text,
    received_at timestamptz NOT NULL,
    via text NOT NULL CHECK (via IN ('database', 'queue')),
    state text NOT NULL DEFAULT 'received' CHECK (state IN ('received', 'processed', 'parked')),
    attempts integer NOT NULL DEFAULT 0,
    duplicates integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    processed_at timestamptz,
    last_error text
);
CREATE INDEX intake_due ON intake (next_attempt_at, id) WHERE state = 'received';
CREATE INDEX intake_digest ON intake (interface, sender, digest);
"""


def upgrade() -> None:
    for statements in (EVENT_LOG, OUTBOX, HELD, TIMER, REQUESTS):
        op.execute(statements)
