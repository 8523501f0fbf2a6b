"""The bank's statements, and what doesn't agree between provider, ledger, receipts and bank."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

RECONCILIATION = """
CREATE TABLE bank_statement (
    statement_id uuid PRIMARY KEY,
    legal_entity_id uuid NOT NULL,
    digest bytea NOT NULL,
    format text NOT NULL CHECK (format IN ('csv', 'camt.053')),
    lines integer NOT NULL,
    imported_at timestamptz NOT NULL,
    imported_by uuid NOT NULL,
    CONSTRAINT bank_statement_once UNIQUE (legal_entity_id, digest)
);
CREATE TABLE bank_line (
    line_id uuid PRIMARY KEY,
    statement_id uuid NOT NULL REFERENCES bank_statement,
    legal_entity_id uuid NOT NULL,
    -- The bank's own reference: overlapping statements bring a line once.
    bank_reference text NOT NULL,
    booked_on date NOT NULL,
    amount_minor bigint NOT NULL,
    currency text NOT NULL,
    counterparty text NOT NULL,
    purpose text NOT NULL,
    CONSTRAINT bank_line_once UNIQUE (legal_entity_id, bank_reference)
);
CREATE INDEX bank_line_day ON bank_line (booked_on);
CREATE TABLE reconciliation_run (
    day date PRIMARY KEY,
    ran_at timestamptz NOT NULL,
    providers_asked integer NOT NULL,
    providers_away integer NOT NULL
);
CREATE TABLE discrepancy (
    discrepancy_id uuid PRIMARY KEY,
    day date NOT NULL,
    kind text NOT NULL,
    subject text NOT NULL,
    provider text,
    expected_minor bigint,
    found_minor bigint,
    currency text,
    found_at timestamptz NOT NULL,
    -- Gone by itself (a later run agrees), or settled by a person with a note.
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'gone', 'settled')),
    settled_at timestamptz,
    settled_by uuid,
    note text,
    CONSTRAINT discrepancy_once UNIQUE (day, kind, subject),
    CONSTRAINT discrepancy_settled_by_somebody CHECK (state <> 'settled' OR num_nonnulls(settled_by, note) = 2)
);
CREATE INDEX discrepancy_open ON discrepancy (day) WHERE state = 'open';
"""


def upgrade() -> None:
    op.execute(RECONCILIATION)
