"""Messages about people's logins: links to choose a password with."""

import sqlalchemy as sa
from alembic import op
from clinic_shared.ids import uuid7

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# code -> language -> (subject of the mail, text)
WORDING = {
    "account-invitation": {
        "ru": (
            "Вход в личный кабинет клиники",
            "Для вас открыт вход в систему клиники. Выберите пароль в течение трёх дней: {{ link }} Никому не передавайте эту ссылку.",
        ),
        "en": (
            "Your account with the clinic",
            "You have been given an account with the clinic. Choose a password within three days: {{ link }} Pass this link on to nobody.",
        ),
    },
    "password-reset": {
        "ru": (
            "Новый пароль",
            "Выберите новый пароль в течение 15 минут: {{ link }} Никому не передавайте эту ссылку. Если вы об этом не просили, сообщите клинике.",
        ),
        "en": (
            "A new password",
            "Choose a new password within 15 minutes: {{ link }} Pass this link on to nobody. If you didn't ask for it, tell the clinic.",
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
