"""Replacing the key that signs tokens, step by step, so that no request fails.

A key is published before it signs and published on after it has signed. Between the steps everybody who
verifies must have read the keys again, and the last token of the old key must have expired.
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from clinic_shared.auth import LEEWAY_SECONDS, LIFETIME_SECONDS
from clinic_shared.jwks import REFRESH_SECONDS, UNKNOWN_KEY_REFETCH_SECONDS
from clinic_shared.key_files import keep_first
from clinic_shared.reloading import POLL_SECONDS

from clinic_identity.keys import CURRENT, SigningKeyMissingError, new_signing_key

NEXT = "signing-key-next.pem"
PREVIOUS = "signing-key-previous.pem"
PUBLISHED_FOR = timedelta(seconds=REFRESH_SECONDS + UNKNOWN_KEY_REFETCH_SECONDS + 2 * POLL_SECONDS)
"""After so long every verifier has the new key, the slowest included."""
SIGNED_FOR = timedelta(seconds=LIFETIME_SECONDS + 2 * LEEWAY_SECONDS + 2 * POLL_SECONDS)
"""After so long nothing that the old key signed is valid any more."""


class Step(StrEnum):
    PUBLISHED = "the next key is published"
    SIGNING = "the next key signs now, the previous one stays published"
    FINISHED = "the previous key is withdrawn"
    WAITING = "nothing to do yet"


@dataclass(frozen=True)
class Progress:
    """What was done, and when the next step is due; `due_at` is None when the rotation is over."""

    step: Step
    due_at: datetime | None


def rotate(folder: Path, *, now: datetime) -> Progress:
    """Take the next step of a rotation, if it is due. Raises SigningKeyMissingError without a first key."""
    current, upcoming, previous = folder / CURRENT, folder / NEXT, folder / PREVIOUS
    if not current.exists():
        raise SigningKeyMissingError(f"{CURRENT} is missing in {folder}")
    if upcoming.exists():
        due_at = _written_at(upcoming) + PUBLISHED_FOR
        if now < due_at:
            return Progress(Step.WAITING, due_at)
        _promote(current, upcoming, previous, now)
        return Progress(Step.SIGNING, now + SIGNED_FOR)
    if previous.exists():
        due_at = _written_at(previous) + SIGNED_FOR
        if now < due_at:
            return Progress(Step.WAITING, due_at)
        previous.unlink()
        return Progress(Step.FINISHED, None)
    keep_first(upcoming, new_signing_key())
    _date(upcoming, now)
    return Progress(Step.PUBLISHED, now + PUBLISHED_FOR)


def _promote(current: Path, upcoming: Path, previous: Path, now: datetime) -> None:
    # In this order: at each moment all keys that may be needed are in published files.
    previous.unlink(missing_ok=True)
    keep_first(previous, current.read_bytes())
    _date(previous, now)
    upcoming.replace(current)


def _written_at(file: Path) -> datetime:
    return datetime.fromtimestamp(file.stat().st_mtime, UTC)


def _date(file: Path, moment: datetime) -> None:
    os.utime(file, (moment.timestamp(), moment.timestamp()))
