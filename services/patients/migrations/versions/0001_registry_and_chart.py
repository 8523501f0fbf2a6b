"""The registry with its search terms, the chart, the timeline; projections of identity."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

PROJECTIONS = """
CREATE TABLE centre (
    centre_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    active boolean NOT NULL
);
CREATE TABLE department (
    department_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    centre_id uuid NOT NULL,
    active boolean NOT NULL
);
CREATE TABLE staff (
    staff_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    name text,
    active boolean NOT NULL
);
"""

REGISTRY = """
CREATE SEQUENCE record_number;

-- Without `registered_at` it is a stub: something of the chart arrived for an id that the registry
-- doesn't have (yet, or no more). It is kept, and found by its id.
CREATE TABLE patient (
    patient_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    status text NOT NULL CHECK (status IN ('active', 'inactive', 'deceased', 'merged')),
    centre_id uuid,
    family text,
    given text,
    patronymic text,
    birth_on date,
    sex text NOT NULL DEFAULT 'unknown' CHECK (sex IN ('male', 'female', 'other', 'unknown')),
    phones text[] NOT NULL DEFAULT '{}',
    emails text[] NOT NULL DEFAULT '{}',
    language text,
    registered_at timestamptz,
    updated_at timestamptz,
    CONSTRAINT patient_registered_has_name CHECK (registered_at IS NULL OR family IS NOT NULL),
    CONSTRAINT patient_registered_is_dated CHECK ((registered_at IS NULL) = (updated_at IS NULL))
);

CREATE TABLE patient_identifier (
    patient_id uuid NOT NULL REFERENCES patient,
    authority text NOT NULL,
    value text NOT NULL,
    type text,
    position smallint NOT NULL,
    in_force boolean NOT NULL,
    PRIMARY KEY (patient_id, authority, value)
);
CREATE UNIQUE INDEX patient_identifier_once ON patient_identifier (authority, value) WHERE in_force;

-- All that a patient can be found by. Byte order, so that a prefix is a range of the index and a page
-- of a common name costs no more than a page of a rare one.
CREATE TABLE search_term (
    term text COLLATE "C" NOT NULL,
    patient_id uuid NOT NULL REFERENCES patient,
    PRIMARY KEY (term, patient_id)
);
CREATE INDEX search_term_patient ON search_term (patient_id, term);
"""

CHART = """
CREATE TABLE encounter (
    encounter_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    patient_id uuid NOT NULL REFERENCES patient,
    status text NOT NULL CHECK (status IN ('in-progress', 'finished', 'entered-in-error')),
    appointment_id uuid,
    referral_id uuid,
    practitioner_id uuid NOT NULL,
    centre_id uuid NOT NULL,
    department_id uuid NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    recorded_at timestamptz NOT NULL,
    summary text,
    recommendations text,
    CHECK (ended_at IS NULL OR started_at <= ended_at)
);
CREATE INDEX encounter_patient ON encounter (patient_id, started_at, encounter_id);

CREATE TABLE diagnosis (
    encounter_id uuid NOT NULL REFERENCES encounter,
    position smallint NOT NULL,
    code text NOT NULL,
    display text,
    rank text NOT NULL CHECK (rank IN ('primary', 'secondary')),
    PRIMARY KEY (encounter_id, position),
    CONSTRAINT diagnosis_once UNIQUE (encounter_id, code)
);
CREATE UNIQUE INDEX diagnosis_one_primary ON diagnosis (encounter_id) WHERE rank = 'primary';

CREATE TABLE prescription (
    prescription_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    patient_id uuid NOT NULL REFERENCES patient,
    status text NOT NULL
        CHECK (status IN ('active', 'completed', 'cancelled', 'stopped', 'entered-in-error')),
    encounter_id uuid REFERENCES encounter,
    practitioner_id uuid NOT NULL,
    centre_id uuid NOT NULL,
    department_id uuid NOT NULL,
    issued_at timestamptz NOT NULL,
    valid_until_on date
);
CREATE INDEX prescription_patient ON prescription (patient_id, issued_at, prescription_id);

CREATE TABLE prescription_item (
    prescription_id uuid NOT NULL REFERENCES prescription,
    position smallint NOT NULL,
    medication text NOT NULL,
    code text,
    system text,
    dose text,
    route text,
    frequency text,
    duration_days integer CHECK (duration_days > 0),
    instructions text,
    PRIMARY KEY (prescription_id, position)
);

CREATE TABLE consent (
    consent_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    patient_id uuid NOT NULL REFERENCES patient,
    kind text NOT NULL,
    channel text,
    status text NOT NULL CHECK (status IN ('granted', 'withdrawn')),
    text_version text NOT NULL,
    changed_at timestamptz NOT NULL,
    expires_at timestamptz,
    CONSTRAINT consent_once UNIQUE NULLS NOT DISTINCT (patient_id, kind, channel)
);
CREATE TABLE consent_version (
    consent_id uuid NOT NULL REFERENCES consent,
    version bigint NOT NULL,
    status text NOT NULL,
    text_version text NOT NULL,
    changed_at timestamptz NOT NULL,
    expires_at timestamptz,
    recorded_by uuid NOT NULL,
    PRIMARY KEY (consent_id, version)
);
"""

RESULTS = """
CREATE TABLE result_version (
    result_id uuid NOT NULL,
    version bigint NOT NULL,
    patient_id uuid NOT NULL REFERENCES patient,
    status text NOT NULL,
    lab_order_id uuid,
    placer_order_number text,
    filler_order_number text,
    partner_id uuid NOT NULL,
    message_id uuid NOT NULL,
    group_index integer NOT NULL,
    report_index integer NOT NULL,
    practitioner_id uuid,
    centre_id uuid,
    department_id uuid,
    report_code text,
    report_system text,
    report_display text,
    observation_count integer NOT NULL,
    abnormal_count integer NOT NULL,
    critical_count integer NOT NULL,
    collected_at timestamptz,
    reported_at timestamptz,
    received_at timestamptz NOT NULL,
    retraction_reason_code text,
    conclusion text,
    notes text[] NOT NULL,
    filed_at timestamptz NOT NULL,
    CONSTRAINT result_version_once PRIMARY KEY (result_id, version)
);
CREATE INDEX result_version_patient ON result_version (patient_id, result_id, version);

CREATE TABLE observation (
    result_id uuid NOT NULL,
    version bigint NOT NULL,
    position integer NOT NULL,
    code text,
    system text,
    display text,
    value_type text,
    value text,
    units text,
    reference_range text,
    interpretation text[] NOT NULL,
    status text,
    observed_at timestamptz,
    sub_id text,
    notes text[] NOT NULL,
    PRIMARY KEY (result_id, version, position),
    FOREIGN KEY (result_id, version) REFERENCES result_version
);

-- What a lab said is amended by a newer version only. Whose chart it stands in may change (a merge);
-- an erasure removes, it doesn't rewrite.
CREATE FUNCTION refuse_rewriting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'filed versions are immutable' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER result_version_is_immutable
    BEFORE UPDATE OF result_id, version, status, report_code, observation_count, received_at, filed_at,
        retraction_reason_code
    ON result_version FOR EACH ROW EXECUTE FUNCTION refuse_rewriting();
CREATE TRIGGER observation_is_immutable
    BEFORE UPDATE ON observation FOR EACH ROW EXECUTE FUNCTION refuse_rewriting();
"""

TIMELINE = """
CREATE TABLE timeline_entry (
    kind text NOT NULL,
    source_id uuid NOT NULL,
    version bigint NOT NULL,
    patient_id uuid NOT NULL,
    status text NOT NULL,
    occurred_at timestamptz NOT NULL,
    centre_id uuid,
    department_id uuid,
    practitioner_id uuid,
    code text,
    amount_minor bigint,
    currency text,
    PRIMARY KEY (kind, source_id)
);
CREATE INDEX timeline_entry_patient ON timeline_entry (patient_id, occurred_at, source_id);
"""


def upgrade() -> None:
    for statements in (PROJECTIONS, REGISTRY, CHART, RESULTS, TIMELINE):
        op.execute(statements)
