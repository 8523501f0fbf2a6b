"""Identifiers: UUIDv7 (RFC 9562, 5.7), made by the application so that PostgreSQL 15 suffices."""

import secrets
from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

__all__ = ["uuid7", "uuid7_at", "uuid7_floor", "uuid7_time"]


def uuid7_floor(moment: datetime) -> UUID:
    """Return the smallest UUIDv7-ordered value at `moment`: a bound for range partitions."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


def uuid7_at(moment: datetime) -> UUID:
    """Return a UUIDv7 as if it had been made at `moment`."""
    tail = secrets.randbits(74)
    version, variant = 7 << 76, 2 << 62
    return UUID(int=uuid7_floor(moment).int | version | (tail >> 62) << 64 | variant | tail % (1 << 62))


def uuid7_time(value: UUID) -> datetime:
    """Return the millisecond in which a UUIDv7 was made."""
    return datetime.fromtimestamp((value.int >> 80) / 1000, tz=UTC)
