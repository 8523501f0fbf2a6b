"""An audit service, and records as producers make them."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from clinic_audit.app import service
from clinic_audit.recording import IncomingRecord
from clinic_shared.audit import Action, AuditEntry, canonical_record, leaf_hash
from clinic_shared.context import Context
from clinic_shared.ids import uuid7
from clinic_shared.testing import MONDAY, service_fixture

audit = service_fixture(service)

RecordFactory = Callable[..., IncomingRecord]


def entry_time(pseq: int) -> datetime:
    """When a record was made: one a minute."""
    return MONDAY + timedelta(minutes=pseq)


@pytest.fixture
def record() -> RecordFactory:
    """Return a maker of records as the relay sends them."""

    def make(pseq: int, *, producer: str = "scheduling", **entry: Any) -> IncomingRecord:
        recorded_at = entry.pop("at", None) or entry_time(pseq)
        context = Context(**{"principal": entry.pop("principal")} if "principal" in entry else {})
        values: dict[str, Any] = {
            "action": Action.READ,
            "resource_type": "Patient",
            "patient_id": uuid7(),
        } | entry
        content = canonical_record(
            AuditEntry(**values), producer=producer, recorded_at=recorded_at, context=context
        )
        return IncomingRecord(producer=producer, pseq=pseq, leaf_hash=leaf_hash(content), record=content)

    return make
