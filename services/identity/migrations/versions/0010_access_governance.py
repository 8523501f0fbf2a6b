"""What ends by itself: grants, employments, accounts that nobody uses; access reviews; grants that two decide."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE leaving (
    staff_id uuid PRIMARY KEY,
    ends_at timestamptz NOT NULL,
    reason text NOT NULL,
    set_by uuid NOT NULL,
    set_at timestamptz NOT NULL
);
CREATE TABLE role_expiry (
    staff_id uuid NOT NULL,
    role text NOT NULL,
    expires_at timestamptz NOT NULL,
    reason text NOT NULL,
    set_by uuid NOT NULL,
    set_at timestamptz NOT NULL,
    PRIMARY KEY (staff_id, role)
);
CREATE TABLE role_request (
    decision_id uuid PRIMARY KEY,
    staff_id uuid NOT NULL,
    role text NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'approved', 'rejected')),
    reason text NOT NULL,
    requested_by uuid NOT NULL,
    requested_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    decided_by uuid,
    decided_at timestamptz,
    decision_reason text,
    CONSTRAINT role_request_two_people CHECK (state <> 'approved' OR decided_by NOT IN (requested_by, staff_id))
);
CREATE TABLE account_use (
    account_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    last_used_at timestamptz NOT NULL,
    warned_at timestamptz,
    disabled_at timestamptz
);
CREATE TABLE access_review (
    review_id uuid PRIMARY KEY,
    department_id uuid NOT NULL,
    opened_by uuid NOT NULL,
    opened_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    closed_at timestamptz
);
CREATE UNIQUE INDEX access_review_one_open ON access_review (department_id) WHERE closed_at IS NULL;
CREATE TABLE access_review_item (
    review_id uuid NOT NULL,
    staff_id uuid NOT NULL,
    role text NOT NULL,
    outcome text CHECK (outcome IN ('certified', 'revoked', 'lapsed', 'kept')),
    decided_by uuid CHECK (decided_by <> staff_id),
    decided_at timestamptz,
    reason text,
    PRIMARY KEY (review_id, staff_id, role)
);
"""


def upgrade() -> None:
    op.execute(TABLES)
