"""A patient's export: each service gathers what it holds and sends it sealed to the key of that one export.

patients asks, with a public key made for the export, and keeps the parts. A part travels as events in pieces; their
copies in logs, queues and backups are unreadable from the moment the private key is destroyed.
"""

import base64
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel
from sqlalchemy import Row

from clinic_shared import contracts
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.encryption.one_way import open_sealed, seal_for
from clinic_shared.envelope import Envelope
from clinic_shared.events import Event

REQUESTED = "patients.export-requested.v1"
PIECE_BYTES = 192 * 1024
"""Of a message: brokers take more, but a long one holds up those behind it."""
LONGEST_PART_BYTES = 16 * 1024 * 1024
INCLUDED, TOO_LARGE = "included", "too-large"
LEFT_OUT = "left-out"
"""The name under which a part says what of a service's isn't in it, and where to get that."""

Json = Mapping[str, Any]


class ExportRequested(BaseModel):
    export_id: UUID
    patient_id: UUID
    patient_ids: list[UUID]
    public_key: str
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one service holds: FHIR R4 resources, and under names of their own the rows that FHIR has nothing for."""

    resources: Sequence[Json] = ()
    others: Mapping[str, Sequence[Json]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Sealed; without content when the part is too large."""

    number: int
    count: int
    outcome: str
    content: bytes | None


Gather = Callable[[Transaction, Sequence[UUID]], Awaitable[Part]]


def contribute(handlers: Handlers, event_type: str, gather: Gather) -> None:
    """Let a service answer each request for an export with its part, as events of `event_type`."""

    @handlers.on(REQUESTED)
    async def answer(tx: Transaction, _: Envelope, asked: ExportRequested) -> None:
        if asked.expires_at <= tx.now:
            return
        part = await gather(tx, asked.patient_ids)
        for piece in sealed_pieces(part, asked.public_key, context_of(asked.export_id, tx.service)):
            tx.emit(_event(event_type, asked, piece))
        tx.audit(
            AuditEntry(
                action=Action.READ,
                resource_type="ExportPart",
                resource_id=asked.export_id,
                patient_id=asked.patient_id,
            )
        )


def context_of(export_id: UUID, service: str) -> str:
    return f"{export_id}/{service}"


def sealed_pieces(part: Part, public_key: str, context: str) -> Iterator[Piece]:
    content = zlib.compress(orjson.dumps({"resources": part.resources, "others": part.others}))
    if len(content) > LONGEST_PART_BYTES:
        yield Piece(number=1, count=1, outcome=TOO_LARGE, content=None)
        return
    cuts = range(0, len(content), PIECE_BYTES)
    for number, start in enumerate(cuts, start=1):
        sealed = seal_for(public_key, content[start : start + PIECE_BYTES], f"{context}/{number}")
        yield Piece(number=number, count=len(cuts), outcome=INCLUDED, content=sealed)


def opened_part(private_key: bytes, pieces: Sequence[bytes], context: str) -> Part:
    """Put a part together again, of its pieces in order. Raises SealBrokenError."""
    opened = [
        open_sealed(private_key, piece, f"{context}/{number}") for number, piece in enumerate(pieces, 1)
    ]
    return Part(**orjson.loads(zlib.decompress(b"".join(opened))))


def _event(event_type: str, asked: ExportRequested, piece: Piece) -> Event:
    content = None if piece.content is None else base64.b64encode(piece.content).decode()
    return Event(
        type=event_type,
        subject=asked.export_id,
        aggregate_version=piece.number,
        patient_id=asked.patient_id,
        data={
            "export_id": str(asked.export_id),
            "version": piece.number,
            "patient_id": str(asked.patient_id),
            "piece_count": piece.count,
            "outcome": piece.outcome,
        },
        private={"content": content},
    )


# -- for those who gather


def told(row: Row[Any] | SimpleNamespace, *, without: Sequence[str] = ()) -> dict[str, Any]:
    """Return a row, opened if it was sealed, as JSON has it, without what is nobody's business or empty."""
    values = vars(row) if isinstance(row, SimpleNamespace) else row._asdict()
    # SQLAlchemy's names of some columns are strings of its own kind, which orjson doesn't take.
    return {str(name): value for name, value in values.items() if name not in without and value is not None}


def present(**members: Any) -> dict[str, Any]:
    """Return a FHIR element: its members may not be null or empty."""
    return {name: value for name, value in members.items() if value not in (None, [], {}, "")}


def reference(resource_type: str, resource_id: UUID | None) -> dict[str, str] | None:
    return None if resource_id is None else {"reference": f"{resource_type}/{resource_id}"}


def concept(text: str | None, *codings: tuple[str | None, str | None]) -> dict[str, Any] | None:
    """Return a CodeableConcept of (system, code) and what people read, or None of nothing."""
    coded = [present(system=system, code=code) for system, code in codings if code]
    return present(coding=coded, text=text) or None


def fhir_status(kind: str, status: str) -> str:
    """Return what the taxonomy says of one of our statuses in FHIR."""
    return str(contracts.load().statuses(kind)[status]["fhir"])
