"""More to search the log by: the request, what kind of caller, the time, refusals.

Expand only: rows from before, and those that the release before adds, have neither request nor kind in columns.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INDEXES = (
    "audit_record_own_id ON audit_record (record_id)",
    "audit_record_request ON audit_record (request_id) WHERE request_id IS NOT NULL",
    "audit_record_refusal ON audit_record (leaf_index) WHERE outcome <> '0'",
    # Records come nearly in the order of their time: a few pages say where a day begins.
    "audit_record_time ON audit_record USING brin (recorded_at)",
)


def upgrade() -> None:
    op.execute("ALTER TABLE audit_record ADD COLUMN request_id uuid, ADD COLUMN agent_kind text")
    with op.get_context().autocommit_block():
        for index in INDEXES:
            op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {index}")
