"""Taking records into the log: in batches, contiguous, each exactly once.

A batch is acknowledged after its transaction has committed. (producer, pseq) tells a redelivery from
another record under the same number, which is an incident: a forgery, or a producer restored from a backup.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from clinic_shared.database import Transaction
from pydantic import AwareDatetime, BaseModel, StringConstraints

from clinic_audit import store
from clinic_audit.domain import leaf_hash


@dataclass(frozen=True, kw_only=True)
class IncomingRecord:
    """A record as it arrived: the exact bytes that its producer hashed, and its place in their sequence."""

    producer: str | None
    pseq: int | None
    leaf_hash: bytes | None
    record: bytes


# PostgreSQL's text holds no NUL: one in a search column would stop the whole log.
_Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]


class _Entity(BaseModel):
    type: _Text
    id: _Text | None


class _Agent(BaseModel):
    who: UUID
    kind: _Text | None = None


class RecordIndex(BaseModel):
    """What is searched by; the record's own bytes are what is kept and hashed."""

    id: UUID
    recorded: AwareDatetime
    action: _Text
    outcome: _Text
    agent: _Agent
    entity: _Entity
    patient: UUID | None
    request: UUID | None = None

    def columns(self) -> dict[str, Any]:
        return {
            "record_id": self.id,
            "recorded_at": self.recorded,
            "action": self.action,
            "outcome": self.outcome,
            "agent": self.agent.who,
            "entity_type": self.entity.type,
            "entity_id": self.entity.id,
            "patient_id": self.patient,
            "request_id": self.request,
            "agent_kind": self.agent.kind,
        }


def read_index(record: bytes) -> RecordIndex:
    """Raises ValueError or RecursionError for bytes that aren't an audit record."""
    return RecordIndex.model_validate(json.loads(record))


async def record_batch(tx: Transaction, batch: Sequence[IncomingRecord]) -> int:
    """Append what is new, in the order it came; returns how many records that were."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    tree = await store.lock_tree(tx)
    keys = [(r.producer, r.pseq) for r in batch if r.producer is not None and r.pseq is not None]
    known = await store.known_leaves(tx, keys) if keys else {}
    for incoming in batch:
        row = _row(incoming, received_at=tx.now)
        if row is None:
            await store.add_incident(
                tx, "malformed", producer=incoming.producer, pseq=incoming.pseq, record=incoming.record
            )
            continue
        key = (row["producer"], row["pseq"])
        there = known.get(key) or rows.get(key, {}).get("leaf_hash")
        if there is None:
            rows[key] = row
        elif there != row["leaf_hash"]:
            await store.add_incident(
                tx, "sequence-reused", producer=key[0], pseq=key[1], record=incoming.record
            )
    if rows:
        fresh = list(rows.values())
        await store.append(tx, [{**row, "leaf_index": tree.size + i} for i, row in enumerate(fresh)])
        await store.save_tree(tx, tree.append(row["leaf_hash"] for row in fresh))
    return len(rows)


def _row(incoming: IncomingRecord, *, received_at: datetime) -> dict[str, Any] | None:
    """Return the columns, or None for what isn't a record or was altered on the way."""
    if incoming.producer is None or incoming.pseq is None or incoming.leaf_hash != leaf_hash(incoming.record):
        return None
    try:
        index = read_index(incoming.record)
    except (ValueError, RecursionError):
        return None
    return {
        "producer": incoming.producer,
        "pseq": incoming.pseq,
        "leaf_hash": incoming.leaf_hash,
        "record": incoming.record,
        "received_at": received_at,
        **index.columns(),
    }
