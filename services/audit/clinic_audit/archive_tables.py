"""The tables of archives; the log's own are in `tables.py`.

`restored_record` inherits from `audit_record`: whoever searches the log finds what was restored too.
"""

from clinic_shared.encryption.backlog import Kind
from clinic_shared.encryption.ciphers import Place
from sqlalchemy import BigInteger, Column, DateTime, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY

from clinic_audit.tables import metadata

_INSTANT = DateTime(timezone=True)

archived_record = Table(
    "archived_record",
    metadata,
    Column("leaf_index", BigInteger, primary_key=True),
    Column("producer", Text, nullable=False),
    Column("pseq", BigInteger, nullable=False),
    Column("leaf_hash", LargeBinary, nullable=False),
)
archive_segment = Table(
    "archive_segment",
    metadata,
    Column("first_index", BigInteger, primary_key=True),
    Column("end_index", BigInteger, nullable=False),
    Column("subtrees", ARRAY(LargeBinary), nullable=False),
    Column("file_name", Text, nullable=False),
    Column("file_digest", LargeBinary, nullable=False),
    Column("data_key", LargeBinary),
    Column("jurisdiction", Text, nullable=False),
    Column("last_received_at", _INSTANT, nullable=False),
    Column("kept_until", _INSTANT, nullable=False),
    Column("archived_at", _INSTANT, nullable=False),
    Column("removed_at", _INSTANT),
    Column("destroyed_at", _INSTANT),
)


def place_of(first_index: int) -> Place:
    """Return where an archive's records belong: what was moved to another archive doesn't open."""
    return Place("audit", "archive_segment", str(first_index))


encrypted = Kind(archive_segment, lambda _, row: place_of(row.first_index))
