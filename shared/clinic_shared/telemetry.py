"""What a process tells in its log: JSON lines with an allow-list of keys. Metrics stand in `metrics.py`.

Patient data must not be able to get in by accident: a key that isn't listed is dropped and counted,
and an exception is told by its class and the places it passed, never by its message.
"""

import logging
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

import orjson
import structlog

from clinic_shared.metrics import LOG_DROPPED_KEYS

_ALLOWED_KEYS = """
action aggregate attempt attempts bindings caller cause channel component connection constraint consumer
count disposition duration environment error_class error_frames event event_type exchange host interface
kind level logger loop method mismatches missing mode operation outcome pending permission port producer
purpose queue queues reason release role route routing_key service settings shard sqlstate state status table
template timer_kind timestamp traceparent type types url_host version via worker
"""
_allowed_keys = set(_ALLOWED_KEYS.split())
_TYPED_SUFFIXES = (
    "_id",
    "_at",
    "_on",
    "_seconds",
    "_ms",
    "_bytes",
    "_count",
    "_number",
    "_version",
    "_total",
)
_EVENT_NAME = re.compile(r"[a-z][a-z0-9_.]{0,79}")
_MAX_TEXT = 500


def allow_log_keys(*keys: str) -> None:
    """Let further keys into the log. They must hold codes or ids, never anything about a person."""
    _allowed_keys.update(keys)


def _is_allowed(key: str, value: object) -> bool:
    if key in _allowed_keys:
        return True
    # Ids, numbers and times say what was handled and how much, in any service's words.
    return key.endswith(_TYPED_SUFFIXES) and isinstance(value, (UUID, int, float, date, datetime))


def _allow_list(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    name = event.get("event")
    if not (isinstance(name, str) and _EVENT_NAME.fullmatch(name)):
        event["event"] = "unnamed_event"
        LOG_DROPPED_KEYS.inc()
    dropped = [key for key, value in event.items() if not _is_allowed(key, value)]
    for key in dropped:
        del event[key]
    if dropped:
        LOG_DROPPED_KEYS.inc(len(dropped))
    for key, value in event.items():
        if isinstance(value, str) and len(value) > _MAX_TEXT:
            event[key] = value[:_MAX_TEXT]
    return event


def class_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _frames(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    return [f"{Path(frame.filename).stem}:{frame.name}:{frame.lineno}" for frame in frames]


def describe_error(error: BaseException) -> dict[str, Any]:
    """Return what may be told about an error: classes, places, SQLSTATE and constraint; no message."""
    chain = list(_causes(error))
    described: dict[str, Any] = {
        "error_class": " < ".join(class_name(one) for one in chain),
        "error_frames": [frame for one in reversed(chain) for frame in _frames(one)][-16:],
    }
    for one in chain:
        if sqlstate := getattr(one, "sqlstate", None):
            described["sqlstate"] = sqlstate
        if constraint := getattr(getattr(one, "diag", None), "constraint_name", None):
            described["constraint"] = constraint
    return described


def _safe_exception(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    exc_info = event.pop("exc_info", None)
    event.pop("exc_text", None)
    if exc_info is True:
        exc_info = sys.exc_info()
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if isinstance(error, BaseException):
        event.update(describe_error(error))
    return event


def _render(_: Any, __: str, event: Mapping[str, Any]) -> bytes:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS)


class _LibraryHandler(logging.Handler):
    """Logs what libraries say, as far as it can't hold values: their format strings, not the arguments.

    A message without arguments may have been formatted before (an f-string), so it is left out.
    """

    def emit(self, record: logging.LogRecord) -> None:
        event: dict[str, Any] = {"logger": record.name}
        if record.args and isinstance(record.msg, str):
            event["template"] = record.msg
        if record.exc_info:
            event["exc_info"] = record.exc_info
        structlog.get_logger().log(record.levelno, "library_log", **event)


def configure_logging(service: str, level: str = "INFO", *, stream: BinaryIO | None = None) -> None:
    """Send the process's log lines to standard output (or `stream`), one JSON object each."""
    level_number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=list(_processors(service)),
        wrapper_class=structlog.make_filtering_bound_logger(level_number),
        logger_factory=structlog.BytesLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_LibraryHandler()]
    # Libraries' INFO is chatter about their own work; their warnings are about ours.
    root.setLevel(max(level_number, logging.WARNING))


def _processors(service: str) -> Iterable[Any]:
    def name_service(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    return (
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_service,
        _safe_exception,
        _allow_list,
        _render,
    )
