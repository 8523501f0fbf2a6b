"""Breaches of personal data, and the clocks that run for each."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE breach (
    breach_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('open', 'closing', 'closed')),
    jurisdiction text NOT NULL,
    summary text NOT NULL,
    since timestamptz NOT NULL,
    until timestamptz NOT NULL,
    actor uuid,
    action text,
    service text,
    resource_type text,
    discovered_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    recorded_by uuid NOT NULL,
    owner_id uuid NOT NULL,
    close_asked_by uuid,
    close_asked_at timestamptz,
    conclusion text,
    closed_by uuid,
    closed_at timestamptz,
    CHECK (since < until),
    CONSTRAINT breach_two_people CHECK (closed_by <> close_asked_by),
    CHECK (state <> 'closed' OR closed_by IS NOT NULL)
);
CREATE TABLE breach_clock (
    breach_id uuid NOT NULL REFERENCES breach,
    name text NOT NULL,
    basis text NOT NULL,
    due_at timestamptz NOT NULL,
    met_at timestamptz,
    met_by uuid,
    note text,
    overdue_at timestamptz,
    PRIMARY KEY (breach_id, name)
);
CREATE INDEX breach_clock_late ON breach_clock (due_at) WHERE met_at IS NULL;
"""


def upgrade() -> None:
    op.execute(TABLES)
