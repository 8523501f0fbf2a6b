"""Which patients are one person, as patients tells."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

MERGED = """
CREATE TABLE patient_merge (
    merge_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    source_id uuid NOT NULL,
    target_id uuid NOT NULL,
    in_force boolean NOT NULL
);
CREATE INDEX patient_merge_source ON patient_merge (source_id) WHERE in_force;
CREATE INDEX patient_merge_target ON patient_merge (target_id) WHERE in_force;
"""


def upgrade() -> None:
    op.execute(MERGED)
