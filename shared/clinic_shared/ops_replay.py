"""What an operator asks of event logs and read models: resend, rebuild, roll back, and how far it is.

And which months of the logs are there, and until when.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy import Row

from clinic_shared import contracts, partitions, rebuild, replay
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import InvalidRequestError, NotFoundError
from clinic_shared.partition_upkeep import retention_of
from clinic_shared.rebuild import NoReadModelError, ReadModel
from clinic_shared.replay import ReplayPurpose, Wanted
from clinic_shared.routing import ClinicRouter, CurrentRuntime, Tx
from clinic_shared.topology import installed

READ = "ops.read"
REPLAY = "ops.replay"

router = ClinicRouter(prefix="/v1/ops", tags=["operations"])

Limit = Annotated[int, Query(ge=1, le=200)]


class ReplayPart(BaseModel):
    """One owner's answer; nulls until it has come."""

    producer: str
    event_count: int | None
    high_water_id: UUID | None
    completed_at: datetime | None


class ReplayRequest(BaseModel):
    """What this service asked of others' event logs."""

    replay_id: UUID
    purpose: ReplayPurpose
    state: Literal["running", "complete", "cancelled"]
    from_at: datetime | None
    until_at: datetime | None
    subject: UUID | None
    keep_origin: bool
    requested_at: datetime
    requested_by: UUID | None
    finished_at: datetime | None
    parts: list[ReplayPart]


class ReplayJob(BaseModel):
    """What this service was asked for. `total` is null until it was counted."""

    replay_id: UUID
    consumer: str
    purpose: ReplayPurpose
    state: Literal["running", "complete", "cancelled"]
    event_count: int
    total: int | None
    requested_at: datetime
    begun_at: datetime | None
    finished_at: datetime | None


class Replays(BaseModel):
    requests: list[ReplayRequest]
    jobs: list[ReplayJob]


class ResendRequest(BaseModel):
    """Events recorded in `[from_at, until_at)` that this service consumes; nothing named means all types."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "from_at": "2026-03-02T00:00:00Z",
                    "until_at": "2026-03-03T00:00:00Z",
                    "dry_run": True,
                }
            ]
        },
    )

    from_at: AwareDatetime
    until_at: AwareDatetime | None = None
    event_types: list[str] = Field(default_factory=list, max_length=100)
    subject: UUID | None = None
    dry_run: bool = Field(default=False, description="Only count")
    keep_origin: bool = Field(
        default=False,
        description="As they were published, with effects outside (messages, payments); "
        "otherwise as replayed, without",
    )
    events_per_second: int | None = Field(default=None, ge=1, le=100_000)


class Asked(BaseModel):
    """Accepted, not done: the owners begin when they get to it."""

    replay_id: UUID


class RebuildRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"compare_only": True}]})

    compare_only: bool = Field(default=False, description="Say what differs and throw the copy away")


class RebuildAsked(BaseModel):
    rebuild_id: UUID


class RebuildPart(BaseModel):
    """One owner's events as far as they have come. `sent` is null until the owner has sent all."""

    producer: str
    received: int
    skipped: int
    sent: int | None


class RebuildDifference(BaseModel):
    """Rows that only the rebuilt copy has, only the live one had, and that said something else."""

    table: str
    missing: int
    surplus: int
    different: int


class RebuildDocument(BaseModel):
    rebuild_id: UUID
    state: str
    compare_only: bool
    requested_at: datetime
    requested_by: UUID | None
    begun_at: datetime | None
    filled_at: datetime | None
    finished_at: datetime | None
    event_count: int | None
    difference_count: int | None
    differences: list[RebuildDifference] | None
    checksum: str | None
    failure: str | None
    parts: list[RebuildPart] = Field(description="While it is being filled")


class RebuildList(BaseModel):
    rebuilds: list[RebuildDocument]


class PartitionEntry(BaseModel):
    """A month of a table, or its default partition: rows there mean that nobody made the months ahead."""

    table: str
    name: str
    starts_at: datetime | None
    ends_at: datetime | None
    expires_at: datetime | None = Field(description="Null: kept for good, or on legal hold")
    estimated_rows: int
    size_bytes: int


class PartitionList(BaseModel):
    legal_hold: bool
    partitions: list[PartitionEntry]


@router.get("/replays", permission=READ)
async def list_replays(tx: Tx, limit: Limit = 20) -> Replays:
    """What this service asked of event logs, and what its own was asked for; the newest first."""
    _audit_read(tx, "Replay")
    requests = await replay.listed_requests(tx, limit=limit)
    parts = await replay.parts(tx, [row.replay_id for row in requests])
    return Replays(
        requests=[
            ReplayRequest(
                **_fields(ReplayRequest, row),
                parts=[
                    ReplayPart(**_fields(ReplayPart, part))
                    for part in parts
                    if part.replay_id == row.replay_id
                ],
            )
            for row in requests
        ],
        jobs=[ReplayJob(**_fields(ReplayJob, row)) for row in await replay.listed_jobs(tx, limit=limit)],
    )


@router.post("/replays", permission=REPLAY, status_code=202)
async def request_resend(tx: Tx, runtime: CurrentRuntime, body: ResendRequest) -> Asked:
    """Fill this service's queues again from the owners' logs; what took effect before is skipped."""
    consumed = contracts.load().consumed_by(runtime.service.name)
    present = installed(runtime) or tuple(contracts.load().services)
    known = [event.type for event in consumed if event.producer in present]
    if not known:
        raise NotFoundError(detail=f"{runtime.service.name} consumes no events.")
    unknown = sorted(set(body.event_types) - set(known))
    if unknown:
        raise InvalidRequestError(detail=f"{runtime.service.name} does not consume {', '.join(unknown)}.")
    wanted = Wanted(
        purpose=ReplayPurpose.COUNT if body.dry_run else ReplayPurpose.RESEND,
        event_types=body.event_types or known,
        from_at=body.from_at,
        until_at=body.until_at,
        subject=body.subject,
        keep_origin=body.keep_origin,
        events_per_second=body.events_per_second,
    )
    return Asked(replay_id=await replay.request(tx, wanted))


@router.post("/replays/{replay_id}/cancel", permission=REPLAY, status_code=202)
async def cancel_replay(tx: Tx, replay_id: UUID) -> Asked:
    """Stop a replay. What was sent by then stays sent."""
    await replay.cancel(tx, replay_id)
    return Asked(replay_id=replay_id)


@router.get("/rebuilds", permission=READ)
async def list_rebuilds(tx: Tx, limit: Limit = 5) -> RebuildList:
    """Rebuilds of this service's read model, the newest first; empty where there is none."""
    _audit_read(tx, "Rebuild")
    return RebuildList(rebuilds=[await _document(tx, row) for row in await rebuild.listed(tx, limit=limit)])


@router.post("/rebuilds", permission=REPLAY, status_code=202)
async def request_rebuild(tx: Tx, runtime: CurrentRuntime, body: RebuildRequest) -> RebuildAsked:
    """Make the read model again from the event logs beside the live one, compare, and swap."""
    _model(runtime)
    return RebuildAsked(rebuild_id=await rebuild.request(tx, compare_only=body.compare_only))


@router.get("/rebuilds/{rebuild_id}", permission=READ)
async def show_rebuild(tx: Tx, rebuild_id: UUID) -> RebuildDocument:
    """How far a rebuild is."""
    _audit_read(tx, "Rebuild", rebuild_id)
    return await _document(tx, await rebuild.shown(tx, rebuild_id))


@router.post("/rebuilds/{rebuild_id}/cancel", permission=REPLAY)
async def cancel_rebuild(tx: Tx, runtime: CurrentRuntime, rebuild_id: UUID) -> RebuildAsked:
    """Stop a rebuild before its swap; the live read model was never touched."""
    await rebuild.cancel(tx, _model(runtime), rebuild_id)
    return RebuildAsked(rebuild_id=rebuild_id)


@router.post("/rebuilds/{rebuild_id}/roll-back", permission=REPLAY)
async def roll_back_rebuild(tx: Tx, runtime: CurrentRuntime, rebuild_id: UUID) -> RebuildAsked:
    """Put the read model of before the swap back. It has got every event since."""
    await rebuild.roll_back(tx, _model(runtime), rebuild_id)
    return RebuildAsked(rebuild_id=rebuild_id)


@router.get("/partitions", permission=READ)
async def list_partitions(tx: Tx, runtime: CurrentRuntime) -> PartitionList:
    """The months of this service's event log and inbox, their sizes, and when each may go."""
    _audit_read(tx, "Partition")
    found = await tx.connection.run_sync(partitions.listed)
    retention = retention_of(runtime.settings)
    return PartitionList(
        legal_hold=retention.legal_hold,
        partitions=[
            PartitionEntry(
                table=partition.table,
                name=partition.name,
                starts_at=partition.month.starts_at if partition.month else None,
                ends_at=partition.month.ends_at if partition.month else None,
                expires_at=retention.expires_at(partition),
                estimated_rows=partition.rows,
                size_bytes=partition.size_bytes,
            )
            for partition in found
        ],
    )


def _model(runtime: Any) -> ReadModel:
    model: ReadModel | None = runtime.service.read_model
    if model is None:
        raise NoReadModelError
    return model


async def _document(tx: Transaction, row: Row[Any]) -> RebuildDocument:
    came = await rebuild.received(tx, row.rebuild_id) if row.state == "filling" else {}
    answered = await replay.parts(tx, [row.rebuild_id]) if row.state == "filling" else []
    parts = [
        RebuildPart(
            producer=part.producer,
            received=came[part.producer].event_count if part.producer in came else 0,
            skipped=came[part.producer].skipped_count if part.producer in came else 0,
            sent=part.event_count,
        )
        for part in answered
    ]
    return RebuildDocument(**_fields(RebuildDocument, row), parts=parts)


def _fields(model: type[BaseModel], row: Row[Any]) -> Mapping[str, Any]:
    columns = row._mapping  # noqa: SLF001  # public, by its documentation
    return {name: columns[name] for name in model.model_fields if name in columns}


def _audit_read(tx: Transaction, resource: str, resource_id: UUID | None = None) -> None:
    tx.audit(
        AuditEntry(
            action=Action.READ,
            resource_type=f"Operations.{resource}",
            resource_id=None if resource_id is None else str(resource_id),
        )
    )
