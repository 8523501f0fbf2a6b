"""Messages that a test puts on the broker itself: again, in another order, forged, unreadable, far too big."""

import json
from datetime import UTC, datetime
from typing import Any, LiteralString, NamedTuple
from uuid import UUID

from clinic_local.api_client import Caller
from clinic_shared import contracts
from clinic_shared.envelope import Envelope, body_of_row
from clinic_shared.event_sealing import JOIN_KEY, opened
from clinic_shared.ids import uuid7

from .books import Books
from .history import History
from .people import Patient
from .server_harm import Broker

BOOKED, CANCELLED = "scheduling.appointment-booked.v1", "scheduling.appointment-cancelled.v1"
OVERSIZE_BYTES = 4_000_000
_ABOUT: LiteralString = f"""
    SELECT event_id, type, subject, aggregate_version, partition_key, occurred_at, recorded_at, origin, correlation_id,
           causation_id, traceparent, seal, data::text, private::text, event_key.data_key
    FROM event {JOIN_KEY} WHERE patient_id = %s ORDER BY event_id
"""  # noqa: S608  # a condition of our own


def published_about(books: Books, producer: str, patient: Patient) -> list[tuple[Envelope, bytes]]:
    """Return what a producer's log has about a patient, as it stood on the wire, oldest first."""
    rows = books.query(
        producer,
        _ABOUT,
        patient.patient_id,
    )
    keyring = books.keyring(producer)
    return [_on_the_wire(producer, opened(keyring, producer, _Row(*row))) for row in rows]


def delivered_about(books: Books, producer: str, patient: Patient) -> list[tuple[Envelope, bytes]]:
    """Return what has taken effect everywhere: what comes for the first time has to come in order."""
    published = published_about(books, producer, patient)
    ids = [envelope.id for envelope, _ in published]
    applied = {
        service: {
            row[0] for row in books.query(service, "SELECT event_id FROM inbox WHERE event_id = ANY(%s)", ids)
        }
        for service in books.services
    }
    consumers = contracts.load().events
    return [
        (envelope, body)
        for envelope, body in published
        if all(envelope.id in applied.get(one, {envelope.id}) for one in consumers[envelope.type].consumers)
    ]


class _Row(NamedTuple):
    event_id: UUID
    type: str
    subject: UUID
    aggregate_version: int
    partition_key: UUID
    occurred_at: datetime
    recorded_at: datetime
    origin: str
    correlation_id: UUID
    causation_id: UUID | None
    traceparent: str | None
    seal: str | None
    data: str
    private: str | None
    event_key: bytes | None


def _on_the_wire(producer: str, row: Any) -> tuple[Envelope, bytes]:
    return Envelope.of_row(row, source=producer), body_of_row(row)


def forged(
    event_type: str, history: History, patient: Patient, *, version: int, **changes: Any
) -> tuple[Envelope, bytes]:
    """Make an event that no producer knows, of a contract's example."""
    example = contracts.examples(event_type)[0]
    subject = changes["appointment_id"]
    data = example["data"] | {"patient_id": patient.patient_id, "version": version, **changes}
    now = datetime.now(UTC)
    envelope = Envelope(
        id=uuid7(),
        source=event_type.partition(".")[0],
        type=event_type,
        subject=subject,
        time=now,
        recorded_at=now,
        aggregate_version=version,
        partition_key=UUID(patient.patient_id),
        correlation_id=uuid7(),
    )
    history.foreign.add(envelope.id)
    return envelope, json.dumps({"data": data, "private": example.get("private")}, default=str).encode()


def discard_all(operator: Caller, service: str) -> None:
    """Let a person decide."""
    path = f"/v1/ops/dead-letters/{service}"
    for letter in operator.items(path, state="parked"):
        operator.post(f"{path}/{letter['id']}/discard", {"reason": "planted by a test"})


def poison(broker: Broker, history: History, body: bytes) -> UUID:
    """Publish what nobody can read; returns its id."""
    event_id = uuid7()
    history.foreign.add(event_id)
    broker.publish(BOOKED, {"cloudEvents_id": str(event_id)}, body)
    return event_id
