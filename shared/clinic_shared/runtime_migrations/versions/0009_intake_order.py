"""What was accepted takes its turn in the order of the database, not by ids, which are made by clocks of processes.

Expand only: the release before names no place, so its rows get theirs from the sequence, as all do that are stored
directly. Rows that are there keep none: they come first, in the order of their ids.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE SEQUENCE intake_place;
ALTER TABLE intake ADD COLUMN place numeric;
-- Set apart from the column, or every row there would be written anew.
ALTER TABLE intake ALTER COLUMN place SET DEFAULT nextval('intake_place');
ALTER SEQUENCE intake_place OWNED BY intake.place;
"""


def upgrade() -> None:
    op.execute(UPGRADE)
    with op.get_context().autocommit_block():
        op.execute("CREATE INDEX CONCURRENTLY IF NOT EXISTS intake_order ON intake (place)")
        op.execute(
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS intake_waiting ON intake ((coalesce(place, 0)), id) "
            "WHERE state = 'received'"
        )
