"""HTTP in: reading the log, and having it verified. Both are audited themselves."""

import json
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.routing import ClinicRouter, CurrentRuntime, Page, PageQuery, Tx, page_of
from fastapi import Query
from pydantic import BaseModel, Field
from sqlalchemy import Row

from clinic_audit import store
from clinic_audit.signing import Signer, sign_checkpoint
from clinic_audit.verification import verify_log

router = ClinicRouter(prefix="/v1/audit", tags=["audit"])


class RecordResponse(BaseModel):
    """`record` is the AuditEvent as its producer wrote it; `leaf_hash` is over exactly its bytes."""

    leaf_index: int
    producer: str
    pseq: int
    recorded_at: datetime
    received_at: datetime
    leaf_hash: Annotated[str, Field(description="Hexadecimal, RFC 6962 section 2.1")]
    record: dict[str, Any]

    @classmethod
    def of(cls, row: Row[Any]) -> "RecordResponse":
        return cls(
            leaf_index=row.leaf_index,
            producer=row.producer,
            pseq=row.pseq,
            recorded_at=row.recorded_at,
            received_at=row.received_at,
            leaf_hash=row.leaf_hash.hex(),
            record=json.loads(row.record),
        )


class FindingResponse(BaseModel):
    kind: str
    text: str


class VerificationResponse(BaseModel):
    intact: bool
    records: int
    checkpoints: int
    producers: Annotated[dict[str, int], Field(description="Records by producer")]
    root_hash: str
    findings: list[FindingResponse]


@router.get("/records", permission="audit.read", operation_id="listAuditRecords")
async def list_records(
    tx: Tx,
    page: PageQuery,
    patient_id: UUID | None = None,
    agent: UUID | None = None,
    entity_id: Annotated[str | None, Query(max_length=100)] = None,
) -> Page[RecordResponse]:
    """List who did what to which record, in the order of the log. Reading is recorded too."""
    key = page.after_key(int)
    rows = await store.list_records(
        tx,
        after=key[0] if key else -1,
        limit=page.limit + 1,
        patient_id=patient_id,
        agent=agent,
        entity_id=entity_id,
    )
    tx.audit(AuditEntry(action=Action.READ, resource_type="AuditEvent", patient_id=patient_id))
    return page_of([RecordResponse.of(row) for row in rows], page, key=lambda record: record.leaf_index)


@router.post("/verify", permission="audit.verify", operation_id="verifyAuditLog")
async def verify(tx: Tx, runtime: CurrentRuntime) -> VerificationResponse:
    """Sign the log as it is and check all of it: each record, each sequence, each checkpoint."""
    signer = runtime.get(Signer)
    await sign_checkpoint(tx, signer)
    report = await verify_log(tx, signer.public_key)
    tx.audit(
        AuditEntry(
            action=Action.EXECUTE,
            resource_type="AuditEvent",
            details={"intact": str(report.intact).lower(), "records": str(report.records)},
        )
    )
    return VerificationResponse(
        intact=report.intact,
        records=report.records,
        checkpoints=report.checkpoints,
        producers=report.producers,
        root_hash=report.root_hash.hex(),
        findings=[FindingResponse(kind=f.kind, text=f.text) for f in report.findings],
    )
