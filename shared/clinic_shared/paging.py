"""Lists in pages: the cursor says where the next page starts, so that inserts don't shift it.

A cursor is opaque but not secret, and ends up in URLs: sort keys are ids, times and codes, not names.
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Self, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_json

from clinic_shared.errors import InvalidRequestError

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
MAX_CURSOR_LENGTH = 512

Item = TypeVar("Item")
Source = TypeVar("Source")


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
    """Which page a caller asks for. Fetch `fetch_limit` rows and hand them to `Page.of`."""

    limit: int = DEFAULT_LIMIT
    cursor: str | None = None

    @property
    def fetch_limit(self) -> int:
        """One more than is shown: its presence says that there is a next page."""
        return self.limit + 1

    def after(self, *types: Any) -> tuple[Any, ...] | None:
        """Return the sort key of the last row the caller saw; None for the first page."""
        return decode_cursor(self.cursor, *types) if self.cursor else None


async def _page_request(
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: Annotated[str | None, Query(max_length=MAX_CURSOR_LENGTH)] = None,
) -> PageRequest:
    return PageRequest(limit=limit, cursor=cursor)


PageQuery = Annotated[PageRequest, Depends(_page_request)]
"""`?limit=&cursor=` of a list."""


class Page(BaseModel, Generic[Item]):
    """One page of a list. `next_cursor` is null on the last page."""

    items: list[Item]
    next_cursor: str | None

    @classmethod
    def of(
        cls,
        rows: Sequence[Source],
        request: PageRequest,
        *,
        item: Callable[[Source], Item],
        sort_key: Callable[[Source], tuple[object, ...]],
    ) -> Self:
        """Make a page of at most `limit` items from up to `fetch_limit` rows."""
        shown = rows[: request.limit]
        more = len(rows) > request.limit
        return cls(
            items=[item(row) for row in shown],
            next_cursor=encode_cursor(*sort_key(shown[-1])) if more else None,
        )
