"""Archived parts of the log: what stays of them here, what is restored beside it, and floors that hold.

A record leaves the log only into `archived_record`, under an archive that says how long it is kept.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE retention_floor (
    jurisdiction text PRIMARY KEY,
    kept_years integer NOT NULL CHECK (kept_years >= 6)
);
INSERT INTO retention_floor (jurisdiction, kept_years) VALUES ('gdpr', 6), ('hipaa', 6), ('152-fz', 25);

CREATE TABLE archived_record (
    leaf_index bigint PRIMARY KEY,
    producer text NOT NULL,
    pseq bigint NOT NULL,
    leaf_hash bytea NOT NULL,
    CONSTRAINT archived_record_producer_pseq UNIQUE (producer, pseq)
);

CREATE TABLE archive_segment (
    first_index bigint PRIMARY KEY,
    end_index bigint NOT NULL CHECK (end_index > first_index),
    subtrees bytea[] NOT NULL,
    file_name text NOT NULL,
    file_digest bytea NOT NULL,
    data_key bytea,
    jurisdiction text NOT NULL REFERENCES retention_floor,
    last_received_at timestamptz NOT NULL,
    kept_until timestamptz NOT NULL,
    archived_at timestamptz NOT NULL,
    removed_at timestamptz,
    destroyed_at timestamptz,
    CHECK (destroyed_at IS NULL OR removed_at IS NOT NULL)
);

CREATE TABLE restored_record (PRIMARY KEY (leaf_index)) INHERITS (audit_record);
CREATE INDEX restored_record_patient ON restored_record (patient_id, leaf_index);
CREATE INDEX restored_record_agent ON restored_record (agent, leaf_index);
"""

KEEP = """
CREATE FUNCTION keep_floor() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP <> 'UPDATE' OR NEW.jurisdiction <> OLD.jurisdiction OR NEW.kept_years < OLD.kept_years THEN
        RAISE EXCEPTION 'a retention floor is never lowered';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER retention_floor_holds BEFORE UPDATE OR DELETE ON retention_floor
    FOR EACH ROW EXECUTE FUNCTION keep_floor();
CREATE TRIGGER retention_floor_stays BEFORE TRUNCATE ON retention_floor
    FOR EACH STATEMENT EXECUTE FUNCTION keep_floor();

CREATE TRIGGER archived_record_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON archived_record
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE FUNCTION check_archive() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    years integer;
    records bigint;
    newest timestamptz;
BEGIN
    SELECT kept_years INTO years FROM retention_floor WHERE jurisdiction = NEW.jurisdiction;
    SELECT count(*), max(received_at) INTO records, newest FROM ONLY audit_record
        WHERE leaf_index >= NEW.first_index AND leaf_index < NEW.end_index;
    IF records <> NEW.end_index - NEW.first_index OR newest <> NEW.last_received_at
        OR NEW.first_index <> (SELECT coalesce(max(end_index), 0) FROM archive_segment)
        OR NOT EXISTS (SELECT FROM checkpoint WHERE tree_size = NEW.end_index)
        OR NEW.removed_at IS NOT NULL OR NEW.destroyed_at IS NOT NULL THEN
        RAISE EXCEPTION 'an archive holds what follows the one before, up to a checkpoint';
    END IF;
    -- By this server's clock: whoever moves a service's clock moves nothing out of the log.
    IF newest > now() - interval '90 days' THEN
        RAISE EXCEPTION 'the audit log is online for 90 days at least';
    END IF;
    IF NEW.kept_until < newest + make_interval(years => years) THEN
        RAISE EXCEPTION 'an archive is kept for % years at least', years;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER archive_segment_checked BEFORE INSERT ON archive_segment
    FOR EACH ROW EXECUTE FUNCTION check_archive();

CREATE FUNCTION keep_archive() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP <> 'UPDATE' THEN
        RAISE EXCEPTION 'the list of archives is append-only';
    END IF;
    IF (NEW.first_index, NEW.end_index, NEW.subtrees, NEW.file_name, NEW.file_digest, NEW.jurisdiction,
        NEW.last_received_at, NEW.archived_at)
        IS DISTINCT FROM (OLD.first_index, OLD.end_index, OLD.subtrees, OLD.file_name, OLD.file_digest,
        OLD.jurisdiction, OLD.last_received_at, OLD.archived_at)
        OR NEW.kept_until < OLD.kept_until
        OR (OLD.removed_at IS NOT NULL AND NEW.removed_at IS DISTINCT FROM OLD.removed_at)
        OR (OLD.destroyed_at IS NOT NULL AND NEW.destroyed_at IS DISTINCT FROM OLD.destroyed_at)
        OR (NEW.data_key IS NULL AND OLD.data_key IS NOT NULL AND NEW.destroyed_at IS NULL) THEN
        RAISE EXCEPTION 'what an archive holds, and how long it is kept, is never taken back';
    END IF;
    IF NEW.destroyed_at IS NOT NULL AND OLD.kept_until > now() THEN
        RAISE EXCEPTION 'this archive is kept until %', OLD.kept_until;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER archive_segment_kept BEFORE UPDATE OR DELETE ON archive_segment
    FOR EACH ROW EXECUTE FUNCTION keep_archive();
CREATE TRIGGER archive_segment_stays BEFORE TRUNCATE ON archive_segment
    FOR EACH STATEMENT EXECUTE FUNCTION keep_archive();
"""

ONLY_INTO_ARCHIVES = """
CREATE FUNCTION refuse_removal() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF EXISTS (
        SELECT FROM gone WHERE NOT EXISTS (
            SELECT FROM archived_record kept JOIN archive_segment segment
                ON kept.leaf_index >= segment.first_index AND kept.leaf_index < segment.end_index
            WHERE kept.leaf_index = gone.leaf_index AND kept.leaf_hash = gone.leaf_hash
                AND kept.producer = gone.producer AND kept.pseq = gone.pseq
                AND segment.destroyed_at IS NULL
                AND gone.received_at <= now() - interval '90 days'
        )
    ) THEN
        RAISE EXCEPTION 'the audit log is append-only: records leave it only into an archive';
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER audit_record_append_only ON audit_record;
CREATE TRIGGER audit_record_append_only BEFORE UPDATE OR TRUNCATE ON audit_record
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_record_archived_only AFTER DELETE ON audit_record
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION refuse_removal();
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(KEEP)
    op.execute(ONLY_INTO_ARCHIVES)
