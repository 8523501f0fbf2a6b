"""Queues at the broker that no installed service has: what was left out after it had run."""

from collections.abc import Iterable

from clinic_shared.broker import Connection, broker_errors
from clinic_shared.topology import QueueProbe

NAME = "clinic topology"


async def existing(amqp_url: str, names: Iterable[str]) -> list[str]:
    """Return which of these queues are there."""
    names = list(names)
    connection = Connection(amqp_url, name=NAME)
    try:
        missing = set(await QueueProbe(connection).missing(names))
    finally:
        await connection.close()
    return [name for name in names if name not in missing]


async def delete(amqp_url: str, names: Iterable[str]) -> int:
    """Delete queues with what waits in them; return how many messages that were."""
    connection = Connection(amqp_url, name=NAME)
    try:
        channel = await connection.channel()
        with broker_errors():
            gone = [await channel.queue_delete(name) for name in names]
    finally:
        await connection.close()
    return sum(answer.message_count or 0 for answer in gone)
