"""Names and birth dates sealed with patients' own keys; blind indexes of the beginnings of their words.

Expand only: a patient without `person` is stored as the release before does it.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE patient ADD COLUMN person bytea")
    with op.get_context().autocommit_block():
        op.execute(
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS patient_person_in_clear ON patient (patient_id) "
            "WHERE person IS NULL AND registered_at IS NOT NULL"
        )
