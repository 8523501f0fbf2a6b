"""Prices of departments and for insurers, published as versions; discounts, packages, who pays for whom."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

PRICES = """
ALTER TABLE price ADD COLUMN department_id uuid;
ALTER TABLE price ADD COLUMN payer text NOT NULL DEFAULT 'patient';
ALTER TABLE price ADD COLUMN list_id uuid;
-- What replaces it allows more: one price for each department and payer.
-- squawk-ignore ban-drop-constraint
ALTER TABLE price DROP CONSTRAINT price_one_at_a_time;
-- An exclusion can't be validated later; prices are a few thousand rows.
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE price ADD CONSTRAINT price_one_at_a_time EXCLUDE USING gist (
    centre_id WITH =,
    (coalesce(department_id, '00000000-0000-0000-0000-000000000000'::uuid)) WITH =,
    payer WITH =, kind WITH =, service_code WITH =, valid WITH &&
);
CREATE TABLE price_list (
    list_id uuid PRIMARY KEY,
    centre_id uuid NOT NULL,
    department_id uuid,
    payer text NOT NULL,
    version integer NOT NULL,
    valid_from date NOT NULL,
    prices integer NOT NULL,
    published_at timestamptz NOT NULL,
    published_by uuid NOT NULL,
    CONSTRAINT price_list_version_once UNIQUE NULLS NOT DISTINCT (centre_id, department_id, payer, version)
);
"""

REDUCTIONS = """
CREATE TABLE discount (
    discount_id uuid PRIMARY KEY,
    centre_id uuid NOT NULL,
    code text NOT NULL,
    service_code text,
    patient_id uuid,
    basis_points integer NOT NULL CHECK (basis_points BETWEEN 1 AND 10000),
    valid daterange NOT NULL CHECK (NOT isempty(valid) AND NOT lower_inf(valid)),
    set_at timestamptz NOT NULL,
    set_by uuid NOT NULL
);
CREATE INDEX discount_centre ON discount (centre_id);
ALTER TABLE invoice_line ADD COLUMN list_unit_amount_minor bigint;
ALTER TABLE invoice_line ADD COLUMN discount_code text;
"""

PAYERS = """
CREATE TABLE coverage (
    coverage_id uuid PRIMARY KEY,
    patient_id uuid NOT NULL,
    payer text NOT NULL CHECK (payer <> 'patient'),
    valid daterange NOT NULL CHECK (NOT isempty(valid) AND NOT lower_inf(valid)),
    set_at timestamptz NOT NULL,
    CONSTRAINT coverage_one_at_a_time EXCLUDE USING gist (patient_id WITH =, valid WITH &&)
);
ALTER TABLE invoice ADD COLUMN payer text NOT NULL DEFAULT 'patient';
"""

PACKAGES = """
CREATE TABLE package (
    package_id uuid PRIMARY KEY,
    centre_id uuid NOT NULL,
    code text NOT NULL,
    name text NOT NULL,
    items jsonb NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    defined_at timestamptz NOT NULL,
    withdrawn_at timestamptz
);
CREATE UNIQUE INDEX package_code_once ON package (centre_id, code) WHERE withdrawn_at IS NULL;
-- What a patient has bought and not used yet, at the price that it was bought at.
CREATE TABLE package_entitlement (
    advance_id uuid NOT NULL REFERENCES invoice,
    service_code text NOT NULL,
    patient_id uuid NOT NULL,
    legal_entity_id uuid NOT NULL,
    unit_amount_minor bigint NOT NULL CHECK (unit_amount_minor > 0),
    bought integer NOT NULL CHECK (bought > 0),
    used integer NOT NULL DEFAULT 0 CHECK (used BETWEEN 0 AND bought),
    PRIMARY KEY (advance_id, service_code)
);
CREATE INDEX package_entitlement_patient ON package_entitlement (patient_id) WHERE used < bought;
"""


def upgrade() -> None:
    for statements in (PRICES, REDUCTIONS, PAYERS, PACKAGES):
        op.execute(statements)
