"""Which records are one person's: asked for by one, agreed to by another, and undone where it was a mistake."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

MERGES = """
CREATE TABLE patient_merge (
    decision_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'approved', 'rejected', 'undone')),
    source_id uuid NOT NULL REFERENCES patient,
    target_id uuid NOT NULL REFERENCES patient,
    reason text NOT NULL,
    requested_by uuid NOT NULL,
    requested_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    decided_by uuid,
    decided_at timestamptz,
    decision_reason text,
    undone_by uuid,
    undone_at timestamptz,
    undo_reason text,
    CHECK (source_id <> target_id),
    CONSTRAINT patient_merge_two_people CHECK (state <> 'approved' OR decided_by <> requested_by)
);
-- A record is replaced by one other at a time.
CREATE UNIQUE INDEX patient_merged_once ON patient_merge (source_id) WHERE state = 'approved';
CREATE INDEX patient_merge_target ON patient_merge (target_id);
CREATE INDEX patient_merge_source ON patient_merge (source_id);
"""


def upgrade() -> None:
    op.execute(MERGES)
