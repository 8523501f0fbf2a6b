"""What was erased, and what must not be."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE erasure (
            erasure_id uuid PRIMARY KEY,
            patient_id uuid NOT NULL,
            retention_class text NOT NULL,
            erased_at timestamptz NOT NULL,
            reason text NOT NULL
        );
        CREATE TABLE legal_hold (
            hold_id uuid PRIMARY KEY,
            patient_id uuid NOT NULL,
            reason text NOT NULL,
            placed_by uuid NOT NULL,
            placed_at timestamptz NOT NULL,
            lifted_by uuid,
            lifted_at timestamptz
        );
        CREATE INDEX legal_hold_of ON legal_hold (patient_id) WHERE lifted_at IS NULL;
        """
    )
