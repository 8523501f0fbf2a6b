"""The network's first wording: every purpose in Russian and English, on every channel."""

import sqlalchemy as sa
from alembic import op
from clinic_shared.ids import uuid7

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

PLACE = "{{ department }}, {{ centre }}, {{ address }}"

# code -> language -> (subject of the mail, text)
WORDING = {
    "appointment-confirmation": {
        "ru": (
            "Вы записаны: {{ date }}, {{ time }}",
            f"Вы записаны: {{{{ service }}}}, {{{{ date }}}} в {{{{ time }}}}. {PLACE}. Телефон: {{{{ phone }}}}.",
        ),
        "en": (
            "Your appointment: {{ date }}, {{ time }}",
            f"You are booked: {{{{ service }}}}, {{{{ date }}}} at {{{{ time }}}}. {PLACE}. Phone: {{{{ phone }}}}.",
        ),
    },
    "appointment-reminder": {
        "ru": (
            "Напоминание о визите: {{ date }}, {{ time }}",
            f"Ждём вас {{{{ date }}}} в {{{{ time }}}}: {{{{ service }}}}. {PLACE}. Телефон: {{{{ phone }}}}.",
        ),
        "en": (
            "Reminder: {{ date }}, {{ time }}",
            f"See you on {{{{ date }}}} at {{{{ time }}}}: {{{{ service }}}}. {PLACE}. Phone: {{{{ phone }}}}.",
        ),
    },
    "appointment-change": {
        "ru": (
            "Новое время визита: {{ date }}, {{ time }}",
            f"Ваша запись изменена: {{{{ service }}}}, {{{{ date }}}} в {{{{ time }}}}. {PLACE}. Телефон: {{{{ phone }}}}.",
        ),
        "en": (
            "New time: {{ date }}, {{ time }}",
            f"Your appointment was changed: {{{{ service }}}}, {{{{ date }}}} at {{{{ time }}}}. {PLACE}. Phone: {{{{ phone }}}}.",
        ),
    },
    "appointment-cancellation": {
        "ru": (
            "Визит отменён: {{ date }}, {{ time }}",
            "Запись на {{ date }} в {{ time }} отменена: {{ service }}. {{ department }}, {{ centre }}. Телефон: {{ phone }}.",
        ),
        "en": (
            "Cancelled: {{ date }}, {{ time }}",
            "Your appointment on {{ date }} at {{ time }} is cancelled: {{ service }}. {{ department }}, {{ centre }}. Phone: {{ phone }}.",
        ),
    },
    "referral-update": {
        "ru": (
            "Направление принято",
            f"Ваше направление принято, можно записаться. {PLACE}. Телефон: {{{{ phone }}}}.",
        ),
        "en": (
            "Your referral was accepted",
            f"Your referral was accepted, you can book a time. {PLACE}. Phone: {{{{ phone }}}}.",
        ),
    },
    "result-ready": {
        "ru": (
            "Готов результат исследования",
            "Готов результат исследования. Его можно посмотреть в личном кабинете. {{ department }}, {{ centre }}. Телефон: {{ phone }}.",
        ),
        "en": (
            "A test result is ready",
            "A test result is ready. You can see it in the patient portal. {{ department }}, {{ centre }}. Phone: {{ phone }}.",
        ),
    },
    "invoice": {
        "ru": (
            "Счёт {{ number }}",
            "Счёт {{ number }} на {{ amount }}. Оплатить: {{ payment_url }}. {{ department }}, {{ centre }}. Телефон: {{ phone }}.",
        ),
        "en": (
            "Invoice {{ number }}",
            "Invoice {{ number }}, {{ amount }}. Pay at {{ payment_url }}. {{ department }}, {{ centre }}. Phone: {{ phone }}.",
        ),
    },
    "payment-received": {
        "ru": (
            "Оплата получена",
            "Оплата получена: {{ amount }}. Спасибо! {{ department }}, {{ centre }}. Телефон: {{ phone }}.",
        ),
        "en": (
            "Payment received",
            "We received your payment of {{ amount }}. Thank you! {{ department }}, {{ centre }}. Phone: {{ phone }}.",
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
