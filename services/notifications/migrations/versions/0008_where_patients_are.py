"""Where patients are registered and departments stand: whose desk keeps a patient's choice of channels.

Rows from before learn it with the patient's or the department's next change.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE patient ADD COLUMN centre_id uuid")
    op.execute("ALTER TABLE department ADD COLUMN centre_id uuid")
    with op.get_context().autocommit_block():
        op.execute(
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS appointment_of_patient ON appointment (patient_id)"
        )
