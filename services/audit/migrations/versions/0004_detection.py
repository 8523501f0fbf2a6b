"""What was found suspicious, and what finding it needs: names as blind indexes, watched patients, habits."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE known_staff (
    staff_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    active boolean NOT NULL,
    family bytea,
    full_name bytea
);
CREATE INDEX known_staff_name ON known_staff (full_name) WHERE active;
CREATE TABLE known_patient (
    patient_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    family bytea,
    full_name bytea
);
CREATE TABLE watched_patient (
    patient_id uuid PRIMARY KEY,
    reason text NOT NULL,
    added_by uuid NOT NULL,
    added_at timestamptz NOT NULL
);
CREATE TABLE workday (
    person uuid NOT NULL,
    day date NOT NULL,
    peers text NOT NULL,
    patients integer NOT NULL,
    busiest_hour integer NOT NULL,
    hours integer NOT NULL,
    PRIMARY KEY (person, day)
);
CREATE INDEX workday_day ON workday (day);
CREATE TABLE suspicion (
    suspicion_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    occasion text NOT NULL CONSTRAINT suspicion_once UNIQUE,
    rule text NOT NULL,
    severity text NOT NULL CHECK (severity IN ('medium', 'high')),
    state text NOT NULL CHECK (state IN ('open', 'taken', 'closed')),
    person uuid NOT NULL,
    patient_id uuid,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    records bigint[] NOT NULL,
    figures jsonb NOT NULL,
    detected_at timestamptz NOT NULL,
    review_due_at timestamptz NOT NULL,
    taken_by uuid CHECK (taken_by <> person),
    taken_at timestamptz,
    closed_by uuid CHECK (closed_by <> person),
    closed_at timestamptz,
    finding text CHECK (finding IN ('misuse', 'explained', 'false-alarm')),
    comment text,
    CONSTRAINT suspicion_closed_with_finding CHECK ((state = 'closed') = (finding IS NOT NULL))
);
CREATE INDEX suspicion_waiting ON suspicion (detected_at, suspicion_id) WHERE state <> 'closed';
CREATE INDEX suspicion_of_person ON suspicion (person, detected_at);
"""


def upgrade() -> None:
    op.execute(TABLES)
