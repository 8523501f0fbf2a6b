"""Logins on devices that weren't seen before: what their owners are told."""

import sqlalchemy as sa
from alembic import op
from clinic_shared.ids import uuid7

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# code -> language -> (subject of the mail, text)
WORDING = {
    "new-device": {
        "ru": (
            "Вход с нового устройства",
            "В вашу учётную запись вошли {{ date }} в {{ time }} UTC с нового устройства, адрес {{ login_address }}. Если это не вы, смените пароль, завершите этот сеанс и сообщите клинике.",
        ),
        "en": (
            "Login on a new device",
            "Your account was used on {{ date }} at {{ time }} UTC on a new device, from {{ login_address }}. If that wasn't you, change your password, end that session and tell the clinic.",
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
