"""The wire form of an event: CloudEvents 1.0 attributes in AMQP headers, a JSON body beside them.

The body has `data` (ids, codes, times, amounts) and `private` (personal and clinical fields, sealed).
Everything the platform needs to route, order and deduplicate stands in the headers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from clinic_shared.events import Origin
from clinic_shared.sealing import unseal

PREFIX = "cloudEvents_"
"""As in CloudEvents' AMQP binding: RabbitMQ maps headers to AMQP 1.0 application properties."""

EVENT_TYPE = re.compile(r"[a-z][a-z0-9-]*\.[a-z][a-z0-9-]*\.v[0-9]{1,4}")
"""The form of our types: what a stranger calls a message otherwise is neither kept nor shown."""

CONTENT_TYPE = "application/json"
SPEC_VERSION = "1.0"


class MalformedMessageError(Exception):
    """The message isn't an event of ours. Names the attribute, never its value."""


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """An event's attributes. `id` is the key for deduplication, `partition_key` the one for order."""

    id: UUID
    source: str
    type: str
    subject: UUID
    time: datetime
    recorded_at: datetime
    aggregate_version: int
    partition_key: UUID
    correlation_id: UUID
    causation_id: UUID | None = None
    traceparent: str | None = None
    origin: Origin = Origin.LIVE
    seal: str | None = None

    @property
    def schema_version(self) -> int:
        return schema_version(self.type)

    def headers(self) -> dict[str, str | int]:
        """Return the AMQP headers."""
        return {PREFIX + name: value for name, value in self.attributes().items()}

    def attributes(self) -> dict[str, str | int]:
        """Return the CloudEvents attributes; those without a value are left out."""
        attributes: dict[str, str | int | None] = {
            "specversion": SPEC_VERSION,
            "id": str(self.id),
            "source": self.source,
            "type": self.type,
            "subject": str(self.subject),
            "time": self.time.isoformat(),
            "dataschema": f"urn:polyclinic:event:{self.type}",
            "recordedtime": self.recorded_at.isoformat(),
            "aggregateversion": self.aggregate_version,
            "schemaversion": self.schema_version,
            "partitionkey": str(self.partition_key),
            "correlationid": str(self.correlation_id),
            "causationid": str(self.causation_id) if self.causation_id else None,
            "traceparent": self.traceparent,
            "origin": self.origin.value,
            "seal": self.seal,
        }
        return {name: value for name, value in attributes.items() if value is not None}

    @classmethod
    def of_row(cls, row: Any, *, source: str, origin: Origin | None = None) -> "Envelope":
        """Return the envelope of a row of `source`'s event log, by default with the origin that it had."""
        return cls(
            id=row.event_id,
            source=source,
            type=row.type,
            subject=row.subject,
            time=row.occurred_at,
            recorded_at=row.recorded_at,
            aggregate_version=row.aggregate_version,
            partition_key=row.partition_key,
            correlation_id=row.correlation_id,
            causation_id=row.causation_id,
            traceparent=row.traceparent,
            origin=origin or Origin(row.origin),
            seal=row.seal,
        )

    @classmethod
    def from_headers(cls, headers: Mapping[str, Any]) -> "Envelope":
        """Read the headers of a delivery. Raises MalformedMessageError."""
        return cls._from(_Attributes(headers, PREFIX))

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> "Envelope":
        """Read the members of a CloudEvent in JSON. Raises MalformedMessageError."""
        return cls._from(_Attributes(attributes, ""))

    @classmethod
    def _from(cls, read: "_Attributes") -> "Envelope":
        return cls(
            id=read.uuid("id"),
            source=read.text("source"),
            type=read.text("type"),
            subject=read.uuid("subject"),
            time=read.moment("time"),
            recorded_at=read.moment("recordedtime"),
            aggregate_version=read.integer("aggregateversion"),
            partition_key=read.uuid("partitionkey"),
            correlation_id=read.uuid("correlationid"),
            causation_id=read.uuid("causationid") if read.has("causationid") else None,
            traceparent=read.text("traceparent") if read.has("traceparent") else None,
            origin=read.origin("origin"),
            seal=read.text("seal") if read.has("seal") else None,
        )


def schema_version(event_type: str) -> int:
    """Return n of `<service>.<event-name>.v<n>`."""
    _, _, version = event_type.rpartition(".v")
    if not version.isdecimal():
        raise MalformedMessageError("type")
    return int(version)


def encode_body(data: Mapping[str, Any], private: Mapping[str, Any] | None) -> bytes:
    body: dict[str, Any] = {"data": data}
    if private is not None:
        body["private"] = private
    return orjson.dumps(body)


def body_of_row(row: Any) -> bytes:
    """Return the body of a row of the event log, read with `data` and `private` as text.

    PostgreSQL's own JSON text is passed on: parsing it only to write it again would cost the most.
    """
    private = f',"private":{row.private}' if row.private is not None else ""
    return f'{{"data":{row.data}{private}}}'.encode()


def decode_body(body: bytes, seal_name: str | None) -> dict[str, Any]:
    """Return `data` and the unsealed `private` as one flat object. Raises MalformedMessageError."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedMessageError("body") from error
    if not isinstance(document, dict) or not isinstance(document.get("data"), dict):
        raise MalformedMessageError("body")
    return {**document["data"], **unseal(document.get("private"), seal_name)}


class _Attributes:
    """Headers read with types; what is missing or wrong is named, never shown."""

    def __init__(self, headers: Mapping[str, Any], prefix: str) -> None:
        self._headers = headers
        self._prefix = prefix

    def has(self, name: str) -> bool:
        return self._headers.get(self._prefix + name) is not None

    def text(self, name: str) -> str:
        value = self._headers.get(self._prefix + name)
        if not isinstance(value, str) or not value:
            raise MalformedMessageError(name)
        return value

    def uuid(self, name: str) -> UUID:
        try:
            return UUID(self.text(name))
        except ValueError:
            raise MalformedMessageError(name) from None

    def moment(self, name: str) -> datetime:
        try:
            value = datetime.fromisoformat(self.text(name))
        except ValueError:
            raise MalformedMessageError(name) from None
        if value.tzinfo is None:
            raise MalformedMessageError(name)
        return value

    def integer(self, name: str) -> int:
        value = self._headers.get(self._prefix + name)
        if not isinstance(value, int):
            raise MalformedMessageError(name)
        return value

    def origin(self, name: str) -> Origin:
        try:
            return Origin(self.text(name))
        except ValueError:
            raise MalformedMessageError(name) from None
