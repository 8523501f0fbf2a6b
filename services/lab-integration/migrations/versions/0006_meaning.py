"""What laboratories' codes and units stand for, in versions, and from which values on a result is critical."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE code_map_version (
            partner_id uuid NOT NULL,
            version bigint NOT NULL,
            changed_at timestamptz NOT NULL,
            changed_by uuid NOT NULL,
            PRIMARY KEY (partner_id, version)
        );
        -- An entry holds from one version of the map until the one that replaces or ends it.
        CREATE TABLE code_map_entry (
            entry_id uuid PRIMARY KEY,
            partner_id uuid NOT NULL,
            kind text NOT NULL CHECK (kind IN ('test', 'unit')),
            source_system text NOT NULL,
            source_code text NOT NULL,
            since_version bigint NOT NULL,
            until_version bigint,
            code text NOT NULL,
            display text,
            unit text,
            FOREIGN KEY (partner_id, since_version) REFERENCES code_map_version
        );
        CREATE UNIQUE INDEX code_map_entry_in_force
            ON code_map_entry (partner_id, kind, source_system, source_code) WHERE until_version IS NULL;
        CREATE TABLE unmapped_code (
            unmapped_id uuid PRIMARY KEY,
            partner_id uuid NOT NULL,
            kind text NOT NULL CHECK (kind IN ('test', 'unit')),
            source_system text NOT NULL,
            source_code text NOT NULL,
            display text,
            message_id uuid NOT NULL,
            seen_at timestamptz NOT NULL,
            CONSTRAINT unmapped_once UNIQUE (partner_id, kind, source_system, source_code)
        );
        CREATE TABLE panic_range (
            code text PRIMARY KEY,
            version bigint NOT NULL,
            display text,
            unit text,
            low numeric,
            high numeric,
            changed_at timestamptz NOT NULL,
            CHECK (low IS NOT NULL OR high IS NOT NULL),
            CHECK (low < high)
        );
        -- Beside `content`, one for each of its observations: the release before reads `content` as it is.
        ALTER TABLE lab_result_version ADD COLUMN meanings jsonb;
        """
    )
