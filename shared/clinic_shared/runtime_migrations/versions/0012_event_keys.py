"""The data keys that events' `private` parts are sealed with, and how far events stored in clear have been sealed.

Expand only: the release before seals no events and goes on storing them in clear beside this one.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE event_key (
    key_id text PRIMARY KEY,
    data_key bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE event_sealing (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    sealed_up_to uuid NOT NULL
);
"""


def upgrade() -> None:
    op.execute(UPGRADE)
