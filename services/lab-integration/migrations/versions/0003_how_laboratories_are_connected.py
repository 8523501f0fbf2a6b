"""How each laboratory is connected, and over which interface each patient group came."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE partner_configuration ADD COLUMN connection jsonb NOT NULL DEFAULT '{}'")
    op.execute("ALTER TABLE lab_unit ADD COLUMN interface text NOT NULL DEFAULT 'hl7'")
    op.execute(
        """
        CREATE TABLE onboarding_case (
            partner_id uuid NOT NULL,
            name text NOT NULL,
            message_id uuid NOT NULL,
            passed_at timestamptz NOT NULL,
            PRIMARY KEY (partner_id, name)
        )
        """
    )
