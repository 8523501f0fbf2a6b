"""Why a message failed, and so what to do with it. Pure; texts name classes and codes, never values."""

import hashlib
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from types import FrameType

import psycopg
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from clinic_shared.consumer import UnknownEventTypeError
from clinic_shared.encryption.ciphers import SealBrokenError
from clinic_shared.envelope import EVENT_TYPE, MalformedMessageError
from clinic_shared.errors import DomainError
from clinic_shared.sealing import UnknownSealError
from clinic_shared.senders import SenderRefusedError

_TRANSIENT = {"40001", "40P01", "55P03", "57014"}
"""Serialization failure, deadlock, lock not available, statement timeout."""

_DISCONNECTED = {"57P01", "57P02", "57P03", "53300"}
"""Shutdown, crash, starting up, too many connections; and all of class 08."""

_HOPELESS = (MalformedMessageError, ValidationError, UnknownSealError, SealBrokenError, SenderRefusedError)


class Verdict(Enum):
    TRANSIENT = auto()
    """Likely to pass at once: try again right away."""
    DISCONNECTED = auto()
    """Our own database went away."""
    HOPELESS = auto()
    """The message itself can't be handled: a person decides."""
    FAILING = auto()
    """Anything else: try again later."""


def judge(error: BaseException) -> Verdict:
    if isinstance(error, _HOPELESS):
        return Verdict.HOPELESS
    if isinstance(error, DomainError):
        # A domain error that names a time to come back (a reference still on its way) may pass.
        return Verdict.FAILING if error.retry_after_seconds is not None else Verdict.HOPELESS
    if is_disconnect(error):
        return Verdict.DISCONNECTED
    if _sqlstate(error) in _TRANSIENT:
        return Verdict.TRANSIENT
    return Verdict.FAILING


def is_disconnect(error: BaseException) -> bool:
    """Tell whether the connection to the database failed, as opposed to a statement."""
    if isinstance(error, PoolTimeoutError):
        return True
    state = _sqlstate(error)
    if state is not None:
        return state in _DISCONNECTED or state.startswith("08")
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or isinstance(error.orig, psycopg.OperationalError)
    return isinstance(error, psycopg.OperationalError)


def _sqlstate(error: BaseException) -> str | None:
    original = error.orig if isinstance(error, DBAPIError) else error
    return original.sqlstate if isinstance(original, psycopg.Error) else None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """`cause` is the same for messages that failed alike; `error` is for people."""

    cause: str
    error: str

    @classmethod
    def of(cls, event_type: str, error: BaseException, *, consumer: str) -> "Failure":
        described = _describe(error)
        return cls(cause=fingerprint(consumer, event_type, described, _place_in_code(error)), error=described)


def fingerprint(*parts: str) -> str:
    """Return the name of a cause. Without line numbers and values, so that releases don't change it."""
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]


def _describe(error: BaseException) -> str:
    return " ".join([type(error).__name__, *_codes(error)])


def _codes(error: BaseException) -> Iterator[str]:
    if isinstance(error, DomainError):
        yield error.slug
    elif isinstance(error, ValidationError):
        # Field and rule; the place below the first level may be a key that the sender chose.
        yield from sorted(
            {f"{'.'.join(map(str, problem['loc'][:1]))}:{problem['type']}" for problem in error.errors()}
        )
    elif isinstance(error, UnknownEventTypeError):
        yield str(error) if EVENT_TYPE.fullmatch(str(error)) else "unknown"
    elif isinstance(error, (MalformedMessageError, UnknownSealError)):
        yield str(error)
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, psycopg.Error):
        yield type(original).__name__
        yield from filter(None, (original.sqlstate, original.diag.constraint_name))


def _place_in_code(error: BaseException) -> str:
    """Return module and function of the innermost frame of ours, or of all when none is."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [frame for frame in frames if _module_of(frame).startswith("clinic_")] or frames
    return f"{_module_of(ours[-1])}:{ours[-1].f_code.co_qualname}" if ours else ""


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
