"""Exports of all that is held about a patient, and the pieces that services contribute, sealed to the export's key."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

EXPORTS = """
CREATE TABLE patient_export (
    export_id uuid PRIMARY KEY,
    patient_id uuid NOT NULL,
    record_ids uuid[] NOT NULL,
    state text NOT NULL CHECK (state IN ('gathering', 'ready', 'incomplete', 'expired')),
    for_patient boolean NOT NULL,
    purpose text NOT NULL,
    reason text,
    requested_by uuid NOT NULL,
    requested_at timestamptz NOT NULL,
    gather_until timestamptz NOT NULL,
    answer_due_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    awaited text[] NOT NULL,
    completed_at timestamptz,
    private_key bytea,
    data_key bytea,
    CONSTRAINT patient_export_key_destroyed CHECK (state <> 'expired' OR private_key IS NULL)
);
CREATE INDEX patient_export_asked ON patient_export (patient_id, requested_by);
CREATE INDEX patient_export_of ON patient_export USING gin (record_ids) WHERE state <> 'expired';
CREATE TABLE patient_export_piece (
    export_id uuid NOT NULL REFERENCES patient_export,
    service text NOT NULL,
    number integer NOT NULL,
    piece_count integer NOT NULL,
    outcome text NOT NULL,
    content bytea,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (export_id, service, number)
);
"""


def upgrade() -> None:
    op.execute(EXPORTS)
