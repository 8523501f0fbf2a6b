"""The bytes of an audit record: canonical, since they are hashed once and compared for ever."""

from datetime import UTC, datetime
from typing import Any

import orjson
import rfc8785
from clinic_shared.audit import Action, AuditEntry, canonical_record
from clinic_shared.context import Context
from hypothesis import given
from hypothesis import strategies as st

WRITABLE = st.text(st.characters(exclude_categories=["Cs"]))
NAMES = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)


@given(details=st.dictionaries(NAMES, WRITABLE), reason=st.none() | WRITABLE)
def test_a_record_is_written_as_rfc_8785_asks(details: dict[str, str], reason: str | None) -> None:
    entry = AuditEntry(action=Action.READ, resource_type="Patient", reason=reason, details=details)
    now = datetime(2026, 3, 2, tzinfo=UTC)
    record = canonical_record(entry, producer="patients", recorded_at=now, context=Context())
    content: dict[str, Any] = orjson.loads(record)
    assert content["details"] == details
    assert record == rfc8785.dumps(content)
