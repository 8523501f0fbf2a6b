"""A small service that has one route for each thing the HTTP half of the runtime promises."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import pytest
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.consumer import Handlers
from clinic_shared.deprecation import Deprecation
from clinic_shared.errors import DomainError, NotFoundError, PreconditionFailedError
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.routing import (
    AUTHENTICATED,
    PUBLIC,
    Caller,
    ClinicRouter,
    CurrentContext,
    CurrentRuntime,
    Idempotency,
    IfMatch,
    Page,
    PageQuery,
    RawBody,
    RequiredIfMatch,
    Tx,
    page_of,
)
from clinic_shared.service import Service
from clinic_shared.testing import service_fixture
from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import text

router = ClinicRouter(prefix="/v1", tags=["notes"])


class NoteRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: Annotated[str, Field(min_length=1, max_length=200)]
    kind: Annotated[str, Field(pattern="^(plain|rich)$")] = "plain"
    patient_id: UUID | None = None
    labels: dict[str, int] = {}


class NoteResponse(BaseModel):
    note_id: UUID
    text: str
    version: int


class FullError(DomainError):
    """There are as many notes as there may be."""

    slug = "notes-full"
    title = "No further notes"
    fix = "Remove one first."


async def _insert(tx: Tx, words: str) -> NoteResponse:
    note = NoteResponse(note_id=uuid7(), text=words, version=1)
    await tx.execute(
        text("INSERT INTO note (note_id, text) VALUES (:note_id, :text)"),
        {"note_id": note.note_id, "text": note.text},
    )
    tx.audit(AuditEntry(action=Action.CREATE, resource_type="Note", resource_id=note.note_id))
    return note


@router.post("/notes", permission="notes.write", idempotency=Idempotency.REQUIRED, status_code=201)
async def write_note(tx: Tx, body: NoteRequest) -> NoteResponse:
    return await _insert(tx, body.text)


@router.post("/drafts", permission="notes.write", status_code=201)
async def write_draft(tx: Tx, body: NoteRequest, response: Response) -> NoteResponse:
    response.headers["Location"] = "/v1/drafts/1"
    return await _insert(tx, body.text)


@router.get("/notes", permission="notes.read")
async def list_notes(tx: Tx, page: PageQuery) -> Page[NoteResponse]:
    rows = await tx.fetch_all(
        text(
            "SELECT note_id, text, version FROM note"
            " WHERE note_id > coalesce(:after, '00000000-0000-0000-0000-000000000000'::uuid)"
            " ORDER BY note_id LIMIT :limit"
        ),
        {"after": page.after, "limit": page.limit + 1},
    )
    return page_of([NoteResponse(**row._mapping) for row in rows], page, key=lambda note: note.note_id)


@router.get("/notes/{note_id}", permission="notes.read")
async def read_note(tx: Tx, note_id: UUID) -> NoteResponse:
    row = await tx.fetch_one(
        text("SELECT note_id, text, version FROM note WHERE note_id = :id"), {"id": note_id}
    )
    if row is None:
        raise NotFoundError
    return NoteResponse(**row._mapping)


@router.get(
    "/memos",
    permission="notes.read",
    deprecation=Deprecation(since=date(2026, 1, 1), sunset_on=date(2027, 1, 1), successor="/v1/notes"),
)
async def list_memos(tx: Tx, page: PageQuery) -> Page[NoteResponse]:
    return await list_notes(tx, page)


@router.put("/notes/{note_id}", permission="notes.write")
async def change_note(tx: Tx, note_id: UUID, body: NoteRequest, expected: RequiredIfMatch) -> NoteResponse:
    row = await tx.fetch_one(
        text(
            "UPDATE note SET text = :text, version = version + 1"
            " WHERE note_id = :id AND version = :version RETURNING note_id, text, version"
        ),
        {"text": body.text, "id": note_id, "version": expected},
    )
    if row is None:
        raise PreconditionFailedError
    return NoteResponse(**row._mapping)


@router.post("/notes/full", permission="notes.write")
async def refuse_note(tx: Tx, body: NoteRequest) -> NoteResponse:
    await _insert(tx, body.text)
    raise FullError("There are ten already.", limit=10, note_id=UUID(int=7))


@router.post("/notes/broken", permission="notes.write")
async def break_note(tx: Tx, body: NoteRequest) -> NoteResponse:
    await _insert(tx, body.text)
    raise RuntimeError(f"could not handle {body.text}")


@router.post("/answers/{status}", permission="notes.write")
async def answer_with(tx: Tx, status: int) -> Response:
    await _insert(tx, str(uuid7()))
    return Response(status_code=status)


@router.get("/patients/{patient_id}", permission="notes.read")
async def read_patient(tx: Tx, caller: Caller, patient_id: UUID) -> dict[str, str]:
    caller.require_patient(patient_id)
    return {"patient_id": str(patient_id)}


@router.delete("/centres/{centre_id}", permission="notes.write", status_code=204)
async def close_centre(tx: Tx, caller: Caller, centre_id: UUID, version: IfMatch) -> None:
    await _insert(tx, f"closing {centre_id} {version}")
    caller.require_place(centre_id=centre_id)


@router.get("/me", permission=AUTHENTICATED)
async def read_me(caller: Caller, context: CurrentContext) -> dict[str, str]:
    return {
        "subject": str(caller.subject),
        "correlation_id": str(context.correlation_id),
        "traceparent": str(context.traceparent),
    }


@router.post(
    "/hl7",
    permission=PUBLIC,
    transactional=False,
    max_body_bytes=64,
    media_types=("application/hl7-v2", "text/plain"),
)
async def receive_hl7(body: RawBody, caller: Caller, runtime: CurrentRuntime) -> dict[str, str]:
    return {"bytes": str(len(body)), "caller": caller.kind, "service": runtime.service.name}


probe_service = Service(
    name="probe",
    package_dir=Path(__file__).parent / "probe",
    routers=(router,),
    handlers=Handlers("probe"),
)
probe = service_fixture(probe_service)


@pytest.fixture
def writer() -> Principal:
    """A member of staff who may read and write notes in one centre."""
    return Principal(
        subject=uuid7(),
        kind="staff",
        roles=frozenset({"registrar"}),
        scopes=frozenset({"notes.read", "notes.write"}),
        centre_ids=frozenset({uuid7()}),
    )


@pytest.fixture
def reader() -> Principal:
    return Principal(subject=uuid7(), kind="staff", scopes=frozenset({"notes.read"}))


@pytest.fixture
def query(probe: Any) -> Callable[..., Any]:
    """Return a function that reads the probe's database."""

    async def read(statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        async with probe.runtime.database.transaction() as transaction:
            rows = await transaction.fetch_all(text(statement), parameters)
            return [tuple(row) for row in rows]

    return read


@pytest.fixture
def audit_records(query: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that returns the audit records written so far, oldest first."""

    async def records() -> list[dict[str, Any]]:
        rows = await query("SELECT convert_from(record, 'UTF8')::jsonb FROM audit_outbox ORDER BY id")
        return [record for (record,) in rows]

    return records
