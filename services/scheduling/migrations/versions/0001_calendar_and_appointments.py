"""Catalogue, resources, availability, appointments and their allocations; projections of others."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

PROJECTIONS = """
CREATE TABLE centre (
    centre_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    time_zone text NOT NULL,
    active boolean NOT NULL
);
CREATE TABLE department (
    department_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    centre_id uuid NOT NULL,
    active boolean NOT NULL
);
CREATE TABLE patient (
    patient_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    active boolean NOT NULL
);
CREATE TABLE referral (
    referral_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    status text NOT NULL,
    patient_id uuid NOT NULL,
    to_department_id uuid NOT NULL
);
"""

CATALOGUE = """
CREATE TABLE service (
    service_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    code text NOT NULL,
    name text NOT NULL,
    duration interval NOT NULL CHECK (duration > interval '0'),
    department_ids uuid[] NOT NULL,
    needs text[] NOT NULL,
    online_bookable boolean NOT NULL,
    active boolean NOT NULL DEFAULT true,
    defined_at timestamptz NOT NULL,
    CONSTRAINT service_code_once UNIQUE (code)
);
-- Practitioners come from identity's events, rooms and devices are ours; one table, since booking
-- locks all of an appointment's resources in the order of their ids.
CREATE TABLE resource (
    resource_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    kind text NOT NULL CHECK (kind IN ('practitioner', 'room', 'device')),
    name text,
    centre_id uuid,
    department_ids uuid[] NOT NULL DEFAULT '{}',
    active boolean NOT NULL DEFAULT true
);
CREATE INDEX resource_departments ON resource USING gin (department_ids);
CREATE INDEX resource_centre ON resource (centre_id) WHERE centre_id IS NOT NULL;
"""

AVAILABILITY = """
CREATE TABLE weekly_hours (
    weekly_hours_id uuid PRIMARY KEY,
    practitioner_id uuid NOT NULL,
    centre_id uuid NOT NULL,
    weekday smallint NOT NULL CHECK (weekday BETWEEN 0 AND 6),
    starts_local time NOT NULL,
    ends_local time NOT NULL,
    valid_from date NOT NULL,
    valid_until date,
    CHECK (starts_local < ends_local),
    CHECK (valid_until IS NULL OR valid_from < valid_until)
);
CREATE INDEX weekly_hours_practitioner ON weekly_hours (practitioner_id, centre_id);
CREATE TABLE availability_exception (
    exception_id uuid PRIMARY KEY,
    practitioner_id uuid NOT NULL,
    centre_id uuid NOT NULL,
    opens boolean NOT NULL,
    during tstzrange NOT NULL CHECK (NOT isempty(during)),
    reason_code text
);
CREATE INDEX availability_exception_during
    ON availability_exception USING gist (practitioner_id, during);
"""

APPOINTMENTS = """
CREATE TABLE appointment (
    appointment_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    status text NOT NULL
        CHECK (status IN ('booked', 'confirmed', 'arrived', 'completed', 'cancelled', 'missed')),
    patient_id uuid NOT NULL,
    practitioner_id uuid,
    room_id uuid,
    device_ids uuid[] NOT NULL,
    service_id uuid NOT NULL REFERENCES service,
    service_code text NOT NULL,
    centre_id uuid NOT NULL,
    department_id uuid NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    referral_id uuid,
    booked_through text NOT NULL,
    reason text,
    booked_at timestamptz NOT NULL,
    confirmed_at timestamptz,
    arrived_at timestamptz,
    completed_at timestamptz,
    cancelled_at timestamptz,
    missed_at timestamptz,
    cancellation_reason_code text,
    CHECK (starts_at < ends_at)
);
CREATE INDEX appointment_patient ON appointment (patient_id, appointment_id);
CREATE INDEX appointment_department ON appointment (department_id, starts_at);
CREATE INDEX appointment_practitioner ON appointment (practitioner_id, starts_at);

-- One row per resource of an appointment that holds its time; this constraint is what makes
-- double booking impossible, whatever the code before it thinks.
CREATE TABLE allocation (
    appointment_id uuid NOT NULL REFERENCES appointment,
    resource_id uuid NOT NULL,
    during tstzrange NOT NULL CHECK (NOT isempty(during)),
    PRIMARY KEY (appointment_id, resource_id),
    CONSTRAINT allocation_no_overlap EXCLUDE USING gist (resource_id WITH =, during WITH &&)
);
"""


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS btree_gist")
    for statements in (PROJECTIONS, CATALOGUE, AVAILABILITY, APPOINTMENTS):
        op.execute(statements)
