"""How people are reached and what they are told lies sealed: beside each row, its wrapped data key.

Expand only: a row without a data key is as it came, and those of the release before are.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

TABLES = {
    "patient": "patient_id",
    "staff_contact": "staff_id",
    "message": "message_id",
    "reply": "provider, provider_reference",
}


def upgrade() -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ADD COLUMN sealed bytea, ADD COLUMN data_key bytea")
    with op.get_context().autocommit_block():
        # What is still to be sealed: empty but for an upgrade, so that looking costs nothing.
        for table, key in TABLES.items():
            op.execute(
                f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {table}_in_clear ON {table} ({key}) "
                "WHERE data_key IS NULL"
            )
