"""Events out: each carries the message's resulting state (contracts/events/notifications)."""

from clinic_shared.events import Event, wire_id, wire_instant

from clinic_notifications.domain import Message


def message_event(name: str, message: Message) -> Event:
    """`name` is message-queued, message-sent, message-delivered or message-failed."""
    m = message
    return Event(
        type=f"notifications.{name}.v1",
        subject=m.message_id,
        aggregate_version=m.version,
        patient_id=m.patient_id,
        data={
            "message_id": str(m.message_id),
            "version": m.version,
            "status": m.status.value,
            "patient_id": wire_id(m.patient_id),
            "channel": m.channel.value,
            "purpose": m.purpose.value,
            "template_code": m.purpose.value,
            "language": m.language,
            "centre_id": wire_id(m.centre_id),
            "department_id": wire_id(m.department_id),
            "about_type": m.about.type,
            "about_id": str(m.about.id),
            "about_version": m.about.version,
            "queued_at": wire_instant(m.queued_at),
            "send_at": wire_instant(m.send_at),
            "useful_until_at": wire_instant(m.useful_until_at),
            "sent_at": wire_instant(m.sent_at),
            "delivered_at": wire_instant(m.delivered_at),
            "failed_at": wire_instant(m.failed_at),
            "failure_code": m.failure_code,
            "provider": m.provider,
            "provider_reference": m.provider_reference,
        },
        private={"recipient": m.recipient, "text": m.text},
    )
