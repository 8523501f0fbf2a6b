"""Pending payments of which no notification came: when each was last asked about, and when it is again."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# Not a kind of provider_call: the release before, which leases those too, knows only its own kinds.
UNHEARD = """
CREATE TABLE unheard_payment (
    payment_id uuid PRIMARY KEY REFERENCES payment,
    readings integer NOT NULL,
    next_reading_at timestamptz NOT NULL,
    last_error text
)
"""


def upgrade() -> None:
    op.execute(UNHEARD)
