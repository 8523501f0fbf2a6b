"""Calls that tell a laboratory of a rejection after its acknowledgement."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE lab_callback (
            callback_id uuid PRIMARY KEY,
            partner_id uuid NOT NULL,
            message_id uuid NOT NULL,
            group_index integer NOT NULL,
            state text NOT NULL,
            body bytea NOT NULL,
            attempts integer NOT NULL,
            next_attempt_at timestamptz NOT NULL,
            last_status integer,
            created_at timestamptz NOT NULL,
            delivered_at timestamptz,
            CONSTRAINT callback_state CHECK (state IN ('waiting', 'delivered', 'failed'))
        )
        """
    )
    op.execute("CREATE INDEX lab_callback_due ON lab_callback (next_attempt_at) WHERE state = 'waiting'")
    op.execute("CREATE INDEX lab_callback_partner ON lab_callback (partner_id, state)")
