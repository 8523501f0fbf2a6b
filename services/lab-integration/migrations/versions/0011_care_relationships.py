"""Who has which patient in their care, as patients tells."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE care_relationship (
            kind text NOT NULL,
            source_id uuid NOT NULL,
            version bigint NOT NULL,
            patient_id uuid NOT NULL,
            practitioner_id uuid,
            centre_id uuid,
            department_id uuid,
            begins_at timestamptz NOT NULL,
            ends_at timestamptz,
            PRIMARY KEY (kind, source_id)
        );
        CREATE INDEX care_relationship_patient ON care_relationship (patient_id, ends_at);
        """
    )
