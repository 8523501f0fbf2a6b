"""Patients' own keys; contacts and identifiers sealed with them.

Expand only: a patient without `contacts` is stored as the release before does it. Where identifiers are `sealed`,
`value` is their blind index, so that the same constraints hold for it.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE patient_key (
            patient_id uuid NOT NULL,
            retention_class text NOT NULL,
            data_key bytea,
            created_at timestamptz NOT NULL,
            destroyed_at timestamptz,
            PRIMARY KEY (patient_id, retention_class),
            CONSTRAINT patient_key_destroyed CHECK ((data_key IS NULL) = (destroyed_at IS NOT NULL))
        )
        """
    )
    op.execute("ALTER TABLE patient ADD COLUMN contacts bytea")
    op.execute("ALTER TABLE patient_identifier ADD COLUMN sealed bytea")
    with op.get_context().autocommit_block():
        op.execute(
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS patient_in_clear ON patient (patient_id) "
            "WHERE contacts IS NULL AND registered_at IS NOT NULL"
        )
