"""Apps in which people log in: their redirect URIs, authorization codes, and the sessions that they open."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

APPS_OF_PEOPLE = """
-- What people let an app do in their name; `scopes` stay what it may do in its own.
ALTER TABLE client
    ADD COLUMN redirect_uris text[] NOT NULL DEFAULT '{}',
    ADD COLUMN user_scopes text[] NOT NULL DEFAULT '{}';

ALTER TABLE session
    ADD COLUMN client_id text,
    ADD COLUMN granted_scopes text[];

CREATE TABLE authorization_code (
    digest bytea PRIMARY KEY,
    client_id text NOT NULL REFERENCES client (client_id),
    session_id uuid NOT NULL REFERENCES session ON DELETE CASCADE,
    redirect_uri text NOT NULL,
    code_challenge text NOT NULL,
    nonce text,
    expires_at timestamptz NOT NULL,
    used_at timestamptz
);
CREATE INDEX authorization_code_of_session ON authorization_code (session_id);
CREATE INDEX authorization_code_of_client ON authorization_code (client_id, session_id);
"""


def upgrade() -> None:
    op.execute(APPS_OF_PEOPLE)
