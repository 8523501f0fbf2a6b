"""Obligations: who has to answer for a critical, a withdrawn or an unexpected result, and by when."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

OBLIGATIONS = """
CREATE TABLE obligation (
    obligation_id uuid PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('critical-result', 'review', 'retraction')),
    version bigint NOT NULL,
    status text NOT NULL CHECK (status IN ('open', 'escalated', 'acknowledged')),
    result_id uuid NOT NULL,
    result_version bigint NOT NULL,
    patient_id uuid NOT NULL,
    partner_id uuid NOT NULL,
    lab_order_id uuid,
    practitioner_id uuid,
    centre_id uuid,
    department_id uuid,
    reader_id uuid,
    seconds integer NOT NULL,
    owner_role text NOT NULL,
    owner_id uuid,
    raised_at timestamptz NOT NULL,
    acknowledge_by_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    escalations integer NOT NULL DEFAULT 0,
    acknowledged_at timestamptz,
    acknowledged_by uuid,
    comment text,
    CONSTRAINT obligation_once UNIQUE NULLS NOT DISTINCT (kind, result_id, result_version, reader_id),
    CONSTRAINT acknowledged_by_somebody CHECK (
        (status = 'acknowledged') = (acknowledged_at IS NOT NULL AND acknowledged_by IS NOT NULL)
    )
);
CREATE INDEX obligation_waiting ON obligation (due_at) WHERE status <> 'acknowledged';
CREATE INDEX obligation_result ON obligation (result_id);

CREATE FUNCTION refuse_forgetting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'an obligation ends by being acknowledged' USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER obligation_stays BEFORE DELETE OR TRUNCATE ON obligation
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_forgetting();

CREATE TABLE duty (
    department_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    head_id uuid,
    on_call_id uuid,
    changed_at timestamptz NOT NULL
);
"""

# The release before this one writes `critical_result` and sets no timer; what it raises while both run
# must not be forgotten.
FROM_BEFORE = """
CREATE FUNCTION oblige(raised critical_result) RETURNS void LANGUAGE sql AS $$
    INSERT INTO obligation (obligation_id, kind, version, status, result_id, result_version, patient_id,
                            partner_id, lab_order_id, practitioner_id, centre_id, department_id,
                            seconds, owner_role, owner_id, raised_at, acknowledge_by_at, due_at)
    SELECT raised.obligation_id, 'critical-result', raised.version, 'open', raised.result_id,
           raised.result_version, raised.patient_id, lab_result.partner_id, lab_result.lab_order_id,
           lab_order.practitioner_id, lab_order.centre_id, lab_order.department_id, 3600,
           CASE WHEN lab_order.practitioner_id IS NULL THEN 'on-call' ELSE 'ordering-practitioner' END,
           lab_order.practitioner_id, raised.raised_at, raised.acknowledge_by_at, raised.acknowledge_by_at
    FROM lab_result LEFT JOIN lab_order USING (lab_order_id)
    WHERE lab_result.result_id = raised.result_id;
    INSERT INTO timer (timer_id, kind, subject, subject_version, due_at, next_attempt_at, payload)
    VALUES (gen_random_uuid(), 'lab-obligation', raised.obligation_id, raised.version, raised.acknowledge_by_at,
            raised.acknowledge_by_at, '{}');
$$;
CREATE FUNCTION oblige_too() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM oblige(NEW);
    RETURN NEW;
END
$$;
CREATE TRIGGER critical_result_obliges AFTER INSERT ON critical_result
    FOR EACH ROW EXECUTE FUNCTION oblige_too();
SELECT oblige(critical_result) FROM critical_result;
"""


def upgrade() -> None:
    op.execute(OBLIGATIONS)
    op.execute(FROM_BEFORE)
