"""What is read once in a transaction: a batch of messages asks the same of the same laboratory again and again."""

from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

from clinic_shared.database import Transaction

T = TypeVar("T")

_known: WeakKeyDictionary[Transaction, dict[Hashable, Any]] = WeakKeyDictionary()


async def once(tx: Transaction, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
    """Return what `read` returned the first time in this transaction. Not for what the transaction changes."""
    known = _known.setdefault(tx, {})
    if key not in known:
        known[key] = await read()
    return cast("T", known[key])


def forget(tx: Transaction) -> None:
    """Read anew from now on: the transaction has changed what may have been read."""
    _known.pop(tx, None)
