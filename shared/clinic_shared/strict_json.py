"""JSON as strangers send it, read without surprises, in one pass.

Refused: duplicate keys (two readers could see different values), NaN and Infinity, numbers that
overflow, nesting deeper than 32, NUL characters and lone surrogates (PostgreSQL can't store them),
anything but UTF-8.
"""

import json
import math
from decimal import Decimal
from typing import Any, NoReturn

MAX_DEPTH = 32


class StrictJSONError(ValueError):
    """The text was refused. `reason` is one of a few constants and never quotes the text."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise StrictJSONError("duplicate keys in an object")
    return members


def _constant(_: str) -> NoReturn:
    raise StrictJSONError("NaN and Infinity are not JSON")


def _number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise StrictJSONError("a number is out of range")
    return number


# The standard decoder's C scanner calls the hook once per object: the cheapest way to see duplicates,
# which neither orjson nor pydantic report.
_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_number)
_exact_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=Decimal)


def loads(body: bytes, *, exact: bool = False) -> Any:
    """Parse a JSON text; `exact` keeps the digits of fractions, as Decimal. Raises StrictJSONError."""
    try:
        value = (_exact_decoder if exact else _decoder).decode(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise StrictJSONError("the text is not UTF-8") from None
    except RecursionError:
        raise StrictJSONError("nested too deeply") from None
    except StrictJSONError:
        raise
    except ValueError:  # JSONDecodeError, and integers of more digits than Python converts
        raise StrictJSONError("the text is not JSON") from None
    # Few brackets can't nest deeply, and without an escape of these kinds no character can be bad.
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH:
        _refuse_depth(value)
    if b"\\u0000" in body or b"\\ud" in body or b"\\uD" in body:
        _refuse_characters(value)
    return value


def dumps(value: Any) -> bytes:
    """Write JSON that `loads` reads back."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _refuse_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent) if isinstance(child, (dict, list))]
        if not level:
            return
    raise StrictJSONError("nested too deeply")


def _refuse_characters(value: Any) -> None:
    if isinstance(value, str):
        if "\x00" in value:
            raise StrictJSONError("NUL characters can't be stored")
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise StrictJSONError("half of a surrogate pair")
    elif isinstance(value, dict):
        for key, member in value.items():
            _refuse_characters(key)
            _refuse_characters(member)
    else:
        for child in _children(value):
            _refuse_characters(child)
