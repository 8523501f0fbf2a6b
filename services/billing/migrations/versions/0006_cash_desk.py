"""Cash desks and their shifts."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

DESKS = """
CREATE TABLE cash_desk (
    desk_id uuid PRIMARY KEY,
    centre_id uuid NOT NULL,
    legal_entity_id uuid NOT NULL,
    currency text NOT NULL,
    name text NOT NULL,
    opened_at timestamptz NOT NULL,
    CONSTRAINT cash_desk_name_once UNIQUE (centre_id, name)
);
CREATE TABLE cash_shift (
    shift_id uuid PRIMARY KEY,
    desk_id uuid NOT NULL REFERENCES cash_desk,
    opened_at timestamptz NOT NULL,
    opened_by uuid NOT NULL,
    counted_at_open_minor bigint NOT NULL CHECK (counted_at_open_minor >= 0),
    closed_at timestamptz,
    closed_by uuid,
    expected_minor bigint,
    counted_minor bigint CHECK (counted_minor >= 0),
    terminal_minor bigint,
    CONSTRAINT cash_shift_closed_is_counted CHECK
        (num_nonnulls(closed_at, closed_by, expected_minor, counted_minor, terminal_minor) IN (0, 5))
);
-- A drawer belongs to one shift at a time.
CREATE UNIQUE INDEX cash_shift_open_once ON cash_shift (desk_id) WHERE closed_at IS NULL;
CREATE INDEX cash_shift_desk ON cash_shift (desk_id, shift_id);
"""


def upgrade() -> None:
    op.execute(DESKS)
