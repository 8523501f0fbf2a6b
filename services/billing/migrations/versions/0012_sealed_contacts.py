"""Where receipts go and what banks say of payers lies sealed: beside each row, its wrapped data key.

A registered receipt stays as it was said; its contact's seal alone may change, or no rotation could reach it. Expand
only: a row without a data key is as it came, and those of the release before are.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

TABLES = {"payment": "payment_id", "bank_line": "line_id", "receipt": "receipt_id"}
SAID = "to_jsonb({0}) - '{{sealed,data_key,document}}'::text[] || jsonb_build_object('said', {0}.document - 'contact')"


def upgrade() -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ADD COLUMN sealed bytea, ADD COLUMN data_key bytea")
    op.execute(
        "CREATE OR REPLACE TRIGGER receipt_registered_stays BEFORE UPDATE ON receipt FOR EACH ROW "
        f"WHEN (OLD.status = 'done' AND {SAID.format('OLD')} IS DISTINCT FROM {SAID.format('NEW')}) "
        "EXECUTE FUNCTION receipt_stays()"
    )
    with op.get_context().autocommit_block():
        # What is still to be sealed: empty but for an upgrade, so that looking costs nothing.
        for table, key in TABLES.items():
            op.execute(
                f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {table}_in_clear ON {table} ({key}) "
                "WHERE data_key IS NULL"
            )
