"""What is read once in a transaction: a batch of messages asks the same of the same laboratory again and again."""

from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar, cast

from clinic_shared.database import Transaction

T = TypeVar("T")


async def once(tx: Transaction, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
    """Return what `read` returned the first time in this transaction. Not for what the transaction changes."""
    if key not in tx.known:
        tx.known[key] = await read()
    return cast("T", tx.known[key])
