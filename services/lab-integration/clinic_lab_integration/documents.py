"""Documents inside of results (OBX-2 ED, DiagnosticReport.presentedForm): read out of the stored message.

They are kept once, in the bytes that the laboratory sent, and belong to the version that brought them.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import NotFoundError
from clinic_shared.intake import body_of, intake_table
from clinic_shared.principal import Principal
from sqlalchemy import Row, select

from clinic_lab_integration import reading, reports, stored
from clinic_lab_integration.hl7 import ResultStatus
from clinic_lab_integration.hl7.datatypes import EncapsulatedData
from clinic_lab_integration.messages import MessageNote
from clinic_lab_integration.tables import lab_result, lab_result_version

UNKNOWN = "application/octet-stream"
# What a browser shows without running anything; the rest is only to be saved. ED-2 and ED-3 (HL7 tables 0191,
# 0291) name the kind and, more closely, the type; laboratories write the type into either.
_MEDIA_TYPES = {
    "pdf": "application/pdf",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "png": "image/png",
    "tiff": "image/tiff",
    "gif": "image/gif",
    "plain": "text/plain",
    "rtf": "application/rtf",
}


@dataclass(frozen=True)
class Document:
    """The `number`-th document of a result's version. `content` is decoded; what can't be stays as it was sent."""

    version: int
    number: int
    title: str
    media_type: str
    content: bytes

    @property
    def document_id(self) -> str:
        return f"{self.version}.{self.number}"

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


async def list_documents(tx: Transaction, result_id: UUID, *, caller: Principal) -> list[Document]:
    """Return the documents of all versions, the newest first; none of a result that was withdrawn."""
    rows = await tx.fetch_all(_versions(result_id))
    if not rows:
        raise NotFoundError
    decision = await reading.permit_results(tx, rows[0].patient_id, caller=caller)
    tx.audit(
        AuditEntry(
            action=Action.READ,
            resource_type="DocumentReference",
            resource_id=result_id,
            patient_id=rows[0].patient_id,
            details=decision.explained(),
        )
    )
    if rows[0].status == ResultStatus.ENTERED_IN_ERROR:
        return []
    return [document for row in rows for document in _read(tx, row)]


async def read_document(tx: Transaction, result_id: UUID, document_id: str, *, caller: Principal) -> Document:
    """Return one document. Raises NotFoundError."""
    for document in await list_documents(tx, result_id, caller=caller):
        if document.document_id == document_id:
            return document
    raise NotFoundError


def _versions(result_id: UUID) -> Any:
    version, message = lab_result_version.c, intake_table.c
    return (
        select(
            lab_result.c.patient_id,
            version.version,
            version.status,
            version.group_index,
            version.report_index,
            message.interface,
            message.id,
            message.data_key,
            message.body,
            message.attributes,
        )
        .join(lab_result, lab_result.c.result_id == version.result_id)
        .join(intake_table, message.id == version.message_id)
        .where(version.result_id == result_id)
        .order_by(version.version.desc())
    )


def _read(tx: Transaction, row: Row[Any]) -> Iterator[Document]:
    content = stored.read(row.interface, body_of(tx, row), MessageNote.read(row.attributes), None)
    observations = reports.observations_of(content.report.patients[row.group_index], row.report_index)
    embedded = (
        (observation, value)
        for observation in observations
        for value in observation.values
        if isinstance(value, EncapsulatedData)
    )
    for number, (observation, value) in enumerate(embedded, 1):
        yield Document(
            version=row.version,
            number=number,
            title=next(iter(observation.notes), "") or observation.code.text,
            media_type=_media_type(value),
            content=_decoded(value),
        )


def _media_type(value: EncapsulatedData) -> str:
    named = (part.strip().lower() for part in (value.subtype, value.media_type))
    return next((_MEDIA_TYPES[name] for name in named if name in _MEDIA_TYPES), UNKNOWN)


def _decoded(value: EncapsulatedData) -> bytes:
    """ED-4, HL7 table 0299: Base64, Hex, or A for none."""
    packed = "".join(value.content.split())
    try:
        match value.encoding.lower():
            case "base64":
                return base64.b64decode(packed, validate=True)
            case "hex":
                return bytes.fromhex(packed)
            case _:
                return value.content.encode()
    except (binascii.Error, ValueError):
        return value.content.encode()
