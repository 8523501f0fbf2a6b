"""HTTP in: reading the log, and having it verified. Both are audited themselves."""

import json
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry, Outcome
from clinic_shared.routing import ClinicRouter, CurrentRuntime, Page, PageQuery, Tx, page_of
from fastapi import Query
from pydantic import AwareDatetime, BaseModel, Field
from sqlalchemy import Row

from clinic_audit import search, store
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


class RecordFilter(BaseModel):
    """Everything given must match."""

    patient_id: UUID | None = None
    agent: UUID | None = None
    entity_id: str | None = Field(default=None, max_length=100)
    entity_type: str | None = Field(default=None, max_length=100)
    producer: str | None = Field(default=None, max_length=40)
    action: Action | None = None
    outcome: Outcome | None = None
    request_id: UUID | None = Field(default=None, description="X-Request-Id: what one request did everywhere")
    since: AwareDatetime | None = None
    until: AwareDatetime | None = Field(default=None, description="before this instant")
    newest_first: bool = False

    async def wanted(self, tx: Tx) -> search.Wanted:
        person = await search.person_of(tx, self.patient_id)
        return search.Wanted(person=person, **self.model_dump(exclude={"newest_first", "patient_id"}))


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
    chosen: Annotated[RecordFilter, Query()],
) -> Page[RecordResponse]:
    """List who did what to which record, in the order of the log or the newest first. Reading is recorded too."""
    key = page.after_key(int)
    rows = await search.find(
        tx,
        await chosen.wanted(tx),
        after=key[0] if key else None,
        limit=page.limit + 1,
        newest_first=chosen.newest_first,
    )
    asked = chosen.model_dump(mode="json", exclude_none=True, exclude={"patient_id", "newest_first"})
    tx.audit(
        AuditEntry(
            action=Action.READ,
            resource_type="AuditEvent",
            patient_id=chosen.patient_id,
            details={name: str(value) for name, value in asked.items()},
        )
    )
    return page_of([RecordResponse.of(row) for row in rows], page, key=lambda record: record.leaf_index)


class CheckpointResponse(BaseModel):
    """A signed checkpoint, with the leaf hashes of the records that it is the first to cover."""

    checkpoint_id: UUID
    log_origin: str
    tree_size: int
    root_hash: Annotated[str, Field(description="Hexadecimal")]
    signed_at: datetime
    key_id: str
    algorithm: str
    signature: Annotated[str, Field(description="Hexadecimal, over the body of a C2SP tlog-checkpoint")]
    leaves: Annotated[str, Field(description="Base64 of the joined SHA-256 hashes")]


@router.get("/checkpoints", permission="audit.verify", operation_id="listAuditCheckpoints")
async def list_checkpoints(
    tx: Tx, after: Annotated[int, Query(ge=0, lt=2**63, description="the size that was seen last")] = 0
) -> list[CheckpointResponse]:
    """The next signed checkpoints, for witnesses: hashes and signatures, nothing of what was recorded."""
    return [CheckpointResponse(**one.to_json()) for one in await store.next_statements(tx, after)]


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
