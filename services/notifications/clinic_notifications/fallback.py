"""When a channel fails a message for good, the next one that the patient wants is tried."""

from clinic_shared.database import Transaction
from clinic_shared.ids import uuid7

from clinic_notifications import links, store
from clinic_notifications.domain import Channel, Message, pick_channel
from clinic_notifications.events import message_event


async def try_next_channel(tx: Transaction, failed: Message) -> Message | None:
    """Queue the same message on the next channel, if there is one and it is still of use."""
    following = await _next(tx, failed)
    if following is None:
        await links.give_up(tx, failed)
    return following


async def _next(tx: Transaction, failed: Message) -> Message | None:
    if failed.useful_until_at is not None and failed.useful_until_at <= tx.now:
        return None
    recipient = await store.find_recipient(tx, failed)
    if recipient is None:
        return None
    tried = await store.channels_tried(tx, failed)
    channel = pick_channel(recipient, failed.purpose, now=tx.now, tried=tried)
    if not isinstance(channel, Channel):
        return None
    following = failed.on_channel(channel, message_id=uuid7(), now=tx.now)
    if await store.add_message(tx, following):
        tx.emit(message_event("message-queued", following))
    return following
