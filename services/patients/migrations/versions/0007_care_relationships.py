"""Who has which patient in their care, from when until when; what already goes on is taken over.

Beside it, what was opened in emergencies.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE care_relationship (
    kind text NOT NULL,
    source_id uuid NOT NULL,
    version bigint NOT NULL,
    patient_id uuid NOT NULL,
    practitioner_id uuid,
    centre_id uuid,
    department_id uuid,
    begins_at timestamptz NOT NULL,
    ends_at timestamptz,
    PRIMARY KEY (kind, source_id)
);
CREATE INDEX care_relationship_patient ON care_relationship (patient_id, ends_at);
"""

BREAK_GLASS = """
CREATE TABLE break_glass (
    break_glass_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('requested', 'active', 'ended', 'reviewed')),
    patient_id uuid NOT NULL,
    staff_id uuid NOT NULL,
    reason_code text NOT NULL,
    reason text NOT NULL,
    requested_at timestamptz NOT NULL,
    approved_by uuid CHECK (approved_by <> staff_id),
    started_at timestamptz,
    ends_at timestamptz,
    ended_at timestamptz,
    review_due_at timestamptz,
    overdue_at timestamptz,
    verdict text CHECK (verdict IN ('justified', 'unjustified')),
    reviewed_at timestamptz,
    reviewed_by uuid CHECK (reviewed_by <> staff_id),
    comment text
);
CREATE INDEX break_glass_of_staff ON break_glass (staff_id, requested_at);
CREATE INDEX break_glass_of_patient ON break_glass (patient_id, started_at);
CREATE INDEX break_glass_to_review ON break_glass (requested_at, break_glass_id) WHERE state <> 'reviewed';
"""

# The periods are those of `care_domain.py`; what is over wouldn't be asked for.
FROM_TIMELINE = """
INSERT INTO care_relationship
SELECT kind, source_id, version, patient_id, practitioner_id, centre_id, department_id,
    occurred_at - CASE kind WHEN 'appointment' THEN interval '30 days' ELSE interval '0' END,
    occurred_at + interval '90 days'
FROM timeline_entry
WHERE kind IN ('appointment', 'lab-order', 'encounter')
    AND status NOT IN ('cancelled', 'missed', 'entered-in-error')
    AND occurred_at > now() - interval '90 days'
UNION ALL
SELECT 'referral', source_id, version, patient_id, NULL, centre_id, department_id, occurred_at, NULL
FROM timeline_entry
WHERE kind = 'referral' AND status IN ('accepted', 'booked', 'seen', 'reported')
UNION ALL
SELECT 'referral-sent', source_id, version, patient_id, practitioner_id, NULL, NULL, occurred_at, NULL
FROM timeline_entry
WHERE kind = 'referral' AND status <> 'closed'
"""

# The other services hear of what was taken over (`care_telling.py`).
TELL = """
INSERT INTO timer (timer_id, kind, subject, subject_version, due_at, next_attempt_at, payload)
SELECT gen_random_uuid(), 'tell-care-relationships', '00000000-0000-0000-0000-000000000000', 1, now(), now(), '{}'
WHERE EXISTS (SELECT FROM care_relationship)
"""


def upgrade() -> None:
    op.execute(TABLE)
    op.execute(BREAK_GLASS)
    op.execute(FROM_TIMELINE)
    op.execute(TELL)
