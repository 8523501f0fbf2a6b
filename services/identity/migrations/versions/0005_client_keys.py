"""OAuth2 clients' own public keys, and the assertions that they signed already."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

CLIENT_KEYS = """
ALTER TABLE client ADD COLUMN jwks jsonb;

-- What a client signed counts once; kept as long as it could count.
CREATE TABLE used_assertion (
    client_key uuid NOT NULL REFERENCES client,
    jti_digest bytea NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (client_key, jti_digest)
);
CREATE INDEX used_assertion_expiry ON used_assertion (expires_at);
"""


def upgrade() -> None:
    op.execute(CLIENT_KEYS)
