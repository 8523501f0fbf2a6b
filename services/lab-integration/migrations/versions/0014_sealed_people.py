"""Who patients are and their numbers lie sealed, found by blind indexes: beside each row, its wrapped data key.

Expand only: a row without a data key is as it came, and those of the release before are.
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

TABLES = {
    "patient": "patient_id",
    "patient_identifier": "authority, value, patient_id",
    "wanted_key": "message_id, group_index, authority, value",
}


def upgrade() -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ADD COLUMN sealed bytea, ADD COLUMN data_key bytea")
    op.execute("ALTER TABLE patient ADD COLUMN birth_key text")
    with op.get_context().autocommit_block():
        op.execute("CREATE INDEX CONCURRENTLY IF NOT EXISTS patient_birth_key ON patient (birth_key)")
        # What is still to be sealed: empty but for an upgrade, so that looking costs nothing.
        for table, key in TABLES.items():
            op.execute(
                f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {table}_in_clear ON {table} ({key}) "
                "WHERE data_key IS NULL"
            )
