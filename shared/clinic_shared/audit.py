"""Audit records: who did what to which record, written in the transaction of the act itself.

A record is FHIR R4 AuditEvent-shaped (IHE BALP), canonical JSON (RFC 8785), and carries the
RFC 6962 leaf hash over exactly those bytes. The relay numbers records without gaps when it sends them.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import orjson

from clinic_shared.context import Context
from clinic_shared.ids import uuid7


class Action(StrEnum):
    """FHIR R4 AuditEvent.action."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    DELETE = "D"
    EXECUTE = "E"


class Outcome(StrEnum):
    """FHIR R4 AuditEvent.outcome: success, and refused by policy (minor failure)."""

    SUCCESS = "0"
    DENIED = "4"


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """One act on one resource. `details` holds codes and ids only, never clinical content."""

    action: Action
    resource_type: str
    resource_id: UUID | str | None = None
    patient_id: UUID | None = None
    outcome: Outcome = Outcome.SUCCESS
    reason: str | None = None
    purpose: str | None = None
    """HL7 v3 ActReason: TREAT, HPAYMT, HOPERAT, BTG (emergency access)."""
    details: dict[str, str] = field(default_factory=dict)


def canonical_record(entry: AuditEntry, *, producer: str, recorded_at: datetime, context: Context) -> bytes:
    """Return the bytes that are hashed, sent and kept."""
    who = context.principal
    record = {
        "id": str(uuid7()),
        "recorded": recorded_at.isoformat(),
        "source": producer,
        "action": entry.action.value,
        "outcome": entry.outcome.value,
        "agent": {"who": str(who.subject), "kind": who.kind, "roles": sorted(who.roles)},
        "token": who.token_id,
        "session": str(who.session_id) if who.session_id else None,
        "entity": {
            "type": entry.resource_type,
            "id": str(entry.resource_id) if entry.resource_id is not None else None,
        },
        "patient": str(entry.patient_id) if entry.patient_id else None,
        "request": str(context.correlation_id),
        "reason": entry.reason,
        "purpose": entry.purpose,
        "details": entry.details,
    }
    # Of strings, lists and nulls under ASCII names, these are the bytes that RFC 8785 asks for.
    return orjson.dumps(record, option=orjson.OPT_SORT_KEYS)


def leaf_hash(record: bytes) -> bytes:
    """Return the Merkle tree leaf hash (RFC 6962, 2.1)."""
    return hashlib.sha256(b"\x00" + record).digest()
