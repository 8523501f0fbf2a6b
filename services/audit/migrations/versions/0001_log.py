"""The audit log, its tree, its checkpoints, and what could not be taken into it."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

LOG = """
CREATE TABLE audit_record (
    leaf_index bigint PRIMARY KEY,
    producer text NOT NULL,
    pseq bigint NOT NULL,
    leaf_hash bytea NOT NULL,
    record bytea NOT NULL,
    record_id uuid NOT NULL,
    recorded_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    action text NOT NULL,
    outcome text NOT NULL,
    agent uuid NOT NULL,
    entity_type text NOT NULL,
    entity_id text,
    patient_id uuid,
    CONSTRAINT audit_record_producer_pseq UNIQUE (producer, pseq)
);
CREATE INDEX audit_record_patient ON audit_record (patient_id, leaf_index) WHERE patient_id IS NOT NULL;
CREATE INDEX audit_record_agent ON audit_record (agent, leaf_index);
CREATE INDEX audit_record_entity ON audit_record (entity_id, leaf_index) WHERE entity_id IS NOT NULL;

CREATE TABLE tree (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    size bigint NOT NULL,
    subtrees bytea[] NOT NULL
);
INSERT INTO tree (size, subtrees) VALUES (0, '{}');

CREATE TABLE checkpoint (
    tree_size bigint PRIMARY KEY,
    checkpoint_id uuid NOT NULL,
    log_origin text NOT NULL,
    root_hash bytea NOT NULL,
    signed_at timestamptz NOT NULL,
    key_id text NOT NULL,
    algorithm text NOT NULL,
    signature bytea NOT NULL
);

CREATE TABLE incident (
    incident_id uuid PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('malformed', 'sequence-reused')),
    producer text,
    pseq bigint,
    record bytea NOT NULL,
    received_at timestamptz NOT NULL,
    occurrences integer NOT NULL DEFAULT 1
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$;
CREATE TRIGGER audit_record_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_record
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER checkpoint_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON checkpoint
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""


def upgrade() -> None:
    op.execute(LOG)
