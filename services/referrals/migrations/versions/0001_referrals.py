"""Referrals between departments; projections of departments, practitioners and patients."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATEMENTS = """
CREATE TABLE department (
    department_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    centre_id uuid NOT NULL,
    active boolean NOT NULL
);
CREATE TABLE practitioner (
    practitioner_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    department_ids uuid[] NOT NULL,
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
    status text NOT NULL CHECK (
        status IN ('created', 'accepted', 'declined', 'booked', 'seen', 'reported', 'closed')
    ),
    patient_id uuid NOT NULL,
    priority text NOT NULL CHECK (priority IN ('routine', 'urgent', 'asap', 'stat')),
    from_centre_id uuid NOT NULL,
    from_department_id uuid NOT NULL,
    from_practitioner_id uuid,
    to_centre_id uuid NOT NULL,
    to_department_id uuid NOT NULL,
    to_practitioner_id uuid,
    service_code text,
    source_encounter_id uuid,
    question text,
    appointment_id uuid,
    encounter_id uuid,
    outcome text,
    decline_comment text,
    decline_reason_code text,
    close_reason_code text,
    created_at timestamptz NOT NULL,
    accepted_at timestamptz,
    declined_at timestamptz,
    booked_at timestamptz,
    seen_at timestamptz,
    reported_at timestamptz,
    closed_at timestamptz,
    CHECK (from_department_id <> to_department_id),
    CHECK ((status = 'booked') <= (appointment_id IS NOT NULL))
);
CREATE INDEX referral_inbound ON referral (to_department_id, referral_id);
CREATE INDEX referral_outbound ON referral (from_department_id, referral_id);
CREATE INDEX referral_patient ON referral (patient_id, referral_id);
CREATE INDEX referral_appointment ON referral (appointment_id) WHERE appointment_id IS NOT NULL;
"""


def upgrade() -> None:
    op.execute(STATEMENTS)
