"""Passwords that were changed: what their owners are told."""

import sqlalchemy as sa
from alembic import op
from clinic_shared.ids import uuid7

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# code -> language -> (subject of the mail, text)
WORDING = {
    "password-changed": {
        "ru": (
            "Пароль изменён",
            "Пароль вашей учётной записи изменён {{ date }} в {{ time }} UTC. Если это не вы, сообщите клинике.",
        ),
        "en": (
            "Your password was changed",
            "The password of your account was changed on {{ date }} at {{ time }} UTC. If that wasn't you, tell the clinic.",
        ),
    },
}
INSERT = sa.text(
    "INSERT INTO template (template_id, code, language, channel, version, subject, body, vendor_name, changed_at)"
    " VALUES (:template_id, :code, :language, :channel, 1, :subject, :body, :vendor_name, now())"
)


def upgrade() -> None:
    for code, languages in WORDING.items():
        for language, (subject, body) in languages.items():
            for channel in ("whatsapp", "sms", "email"):
                op.get_bind().execute(
                    INSERT,
                    {
                        "template_id": uuid7(),
                        "code": code,
                        "language": language,
                        "channel": channel,
                        "subject": subject if channel == "email" else None,
                        "body": body,
                        "vendor_name": code.replace("-", "_") if channel == "whatsapp" else None,
                    },
                )
