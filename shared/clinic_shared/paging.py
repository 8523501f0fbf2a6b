"""Lists in pages: the cursor says where the next page starts, so that inserts don't shift it.

A cursor is opaque but not secret, and ends up in URLs: sort keys are ids, times and codes, not names.
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from fastapi import Depends, Query
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_json

from clinic_shared.errors import InvalidRequestError

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
MAX_CURSOR_LENGTH = 512

Item = TypeVar("Item")


class InvalidCursorError(InvalidRequestError):
    """The cursor wasn't made by this list."""

    fix = "Take `next_cursor` from a page of the same list, unchanged; start without one."


def encode_cursor(*sort_key: object) -> str:
    """Return an opaque cursor of a row's sort key (ids, times, codes)."""
    return base64.urlsafe_b64encode(to_json(sort_key)).rstrip(b"=").decode()


def decode_cursor(cursor: str, *types: Any) -> tuple[Any, ...]:
    """Return the sort key, one value for each type. Raises InvalidCursorError."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        key: tuple[Any, ...] = TypeAdapter(tuple[types]).validate_python(json.loads(raw))  # type: ignore[valid-type]  # a tuple type made at run time
    except (binascii.Error, ValidationError, ValueError, RecursionError):
        raise InvalidCursorError("The cursor doesn't belong to this list.") from None
    if any(isinstance(value, str) and "\x00" in value for value in key):
        raise InvalidCursorError("The cursor doesn't belong to this list.")
    return key


@dataclass(frozen=True)
class PageRequest:
    """Which page a caller asks for. Fetch `limit + 1` rows after it and hand them to `page_of`."""

    limit: int = DEFAULT_LIMIT
    cursor: str | None = None

    @property
    def after(self) -> UUID | None:
        """The id of the last row the caller saw, of a list in id order; None for the first page."""
        key = self.after_key(UUID)
        return key[0] if key else None

    def after_key(self, *types: Any) -> tuple[Any, ...] | None:
        """Return the composite sort key of the last row the caller saw, one value for each type."""
        return decode_cursor(self.cursor, *types) if self.cursor else None


async def _page_request(
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: Annotated[str | None, Query(max_length=MAX_CURSOR_LENGTH)] = None,
) -> PageRequest:
    return PageRequest(limit=limit, cursor=cursor)


PageQuery = Annotated[PageRequest, Depends(_page_request)]


class Page(BaseModel, Generic[Item]):
    """One page of a list. `next_cursor` is null on the last page."""

    items: list[Item]
    next_cursor: str | None


def page_of(items: Sequence[Item], page: PageRequest, *, key: Callable[[Item], object]) -> Page[Item]:
    """Make a page of up to `limit` of the items; one item more says that there is a next page.

    `key` returns what the list is sorted by: an id, or a tuple that ends with one.
    """
    shown = list(items[: page.limit])
    if len(items) <= page.limit:
        return Page[Item](items=shown, next_cursor=None)
    last = key(shown[-1])
    return Page[Item](items=shown, next_cursor=encode_cursor(*(last if isinstance(last, tuple) else (last,))))
