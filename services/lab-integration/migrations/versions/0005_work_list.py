"""The work-list: who a group may be about, what was noted of it. Names come with the next event of each patient."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE patient
            ADD COLUMN family text,
            ADD COLUMN given text,
            ADD COLUMN patronymic text,
            ADD COLUMN birth_on date,
            ADD COLUMN sex text,
            ADD COLUMN family_key text,
            ADD COLUMN given_key text;
        ALTER TABLE lab_unit
            ADD COLUMN note text,
            ADD COLUMN noted_by uuid,
            ADD COLUMN noted_at timestamptz;
        """
    )
    with op.get_context().autocommit_block():
        for index in (
            "patient_name ON patient (family_key, given_key)",
            "patient_birth ON patient (birth_on)",
            "patient_identifier_number ON patient_identifier (value)",
        ):
            op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {index}")
