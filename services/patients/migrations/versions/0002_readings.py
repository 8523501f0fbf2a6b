"""Who has read which version of a result, so that they can be told when it is withdrawn."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE result_reading (
            result_id uuid NOT NULL,
            version bigint NOT NULL,
            reader_id uuid NOT NULL,
            read_at timestamptz NOT NULL,
            PRIMARY KEY (result_id, version, reader_id),
            FOREIGN KEY (result_id, version) REFERENCES result_version
        )
        """
    )
