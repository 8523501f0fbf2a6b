"""Codes by SMS: what patients who log in are sent. On no other channel."""

import sqlalchemy as sa
from alembic import op
from clinic_shared.ids import uuid7

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

WORDING = {
    "ru": "{{ code }} — код для входа, действует 5 минут. Никому его не сообщайте, даже сотрудникам клиники.",
    "en": "{{ code }} is your login code for 5 minutes. Tell it to nobody, not even to the clinic's staff.",
}
INSERT = sa.text(
    "INSERT INTO template (template_id, code, language, channel, version, body, changed_at)"
    " VALUES (:template_id, 'sign-in-code', :language, 'sms', 1, :body, now())"
)


def upgrade() -> None:
    for language, body in WORDING.items():
        op.get_bind().execute(INSERT, {"template_id": uuid7(), "language": language, "body": body})
