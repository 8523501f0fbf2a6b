"""`/v1/ops/dead-letters`: what could not take effect, and what a person decides about it.

Everything is audited, looking included. Content is shown by `reveal` alone, which has a permission of
its own; who may change a message may not let it be handled.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel
from sqlalchemy import Row

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.dead_letters import corrections, discards, listing, message, models, rehearsal, runs
from clinic_shared.dead_letters.selection import Filter, Selection
from clinic_shared.paging import Page, PageQuery, page_of
from clinic_shared.routing import ClinicRouter, CurrentContext, CurrentRuntime, Idempotency, Tx

READ = "ops.read"
REDRIVE = "ops.redrive"
REVEAL = "ops.reveal"
CORRECT = "ops.correct"
APPROVE = "ops.approve"
RECENT_RUNS = 10

router = ClinicRouter(prefix="/v1/ops/dead-letters", tags=["operations"])

Document = TypeVar("Document", bound=BaseModel)


@router.get("", permission=READ)
async def list_dead_letters(
    tx: Tx, page: PageQuery, chosen: Annotated[models.LetterFilter, Query()]
) -> models.DeadLetters:
    """Messages that could not take effect, and all that wait by cause; runs and open decisions beside them."""
    _audit_read(tx, "DeadLetter")
    wanted = Filter(**chosen.model_dump())
    after = page.after_key(models.LetterNumber)
    rows = await listing.listed(tx, wanted, limit=page.limit + 1, after_id=after[0] if after else 0)
    found = page_of(_all(models.DeadLetter, rows), page, key=lambda letter: letter.id)
    return models.DeadLetters(
        items=found.items,
        next_cursor=found.next_cursor,
        groups=[models.DeadLetterGroup(**asdict(group)) for group in await listing.groups(tx, wanted)],
        runs=[models.Run(**asdict(run)) for run in await runs.listed(tx, limit=RECENT_RUNS)],
        decisions=await _decisions(tx, pending_only=True),
    )


@router.get("/runs", permission=READ)
async def list_redrive_runs(tx: Tx, page: PageQuery) -> Page[models.Run]:
    """Redrive runs, the newest first."""
    _audit_read(tx, "RedriveRun")
    found = await runs.listed(tx, before=page.after, limit=page.limit + 1)
    return page_of([models.Run(**asdict(run)) for run in found], page, key=lambda run: run.run_id)


@router.get("/runs/{run_id}", permission=READ)
async def show_redrive_run(
    tx: Tx, run_id: UUID, page: PageQuery, state: models.ItemState | None = None
) -> models.RunItems:
    """A run's progress, and what became of each of its messages."""
    _audit_read(tx, "RedriveRun", run_id)
    run = models.Run(**asdict(await runs.progress(tx, run_id)))
    after = page.after_key(models.LetterNumber)
    rows = await runs.items(tx, run_id, state=state, after=after[0] if after else 0, limit=page.limit + 1)
    found = page_of(_all(models.RunItem, rows), page, key=lambda item: item.held_id)
    return models.RunItems(items=found.items, next_cursor=found.next_cursor, run=run)


@router.post("/runs/{run_id}/cancel", permission=REDRIVE)
async def cancel_redrive_run(tx: Tx, run_id: UUID) -> models.Run:
    """Leave what hasn't been handled yet as it is; a message in hand at this moment is finished."""
    await runs.cancel(tx, run_id)
    return models.Run(**asdict(await runs.progress(tx, run_id)))


@router.get("/decisions", permission=READ)
async def list_dead_letter_decisions(tx: Tx) -> list[models.Decision]:
    """The latest decisions that needed a second person, the newest first."""
    _audit_read(tx, "DeadLetterDecision")
    return await _decisions(tx)


@router.post("/decisions/{decision_id}/approve", permission=APPROVE)
async def approve_dead_letter_decision(tx: Tx, decision_id: UUID) -> models.Decided:
    """Agree as the second person: the messages are discarded now. Not for whoever asked."""
    return models.Decided(**asdict(await discards.approve(tx, decision_id)))


@router.post("/decisions/{decision_id}/reject", permission=APPROVE)
async def reject_dead_letter_decision(tx: Tx, decision_id: UUID, body: models.ReasonGiven) -> models.Decided:
    """Refuse, or withdraw one's own request. The messages stay as they are."""
    await discards.reject(tx, decision_id, reason=body.reason)
    return models.Decided(count=0, decision_id=decision_id)


@router.post("/dry-run", permission=REDRIVE, transactional=False)
async def try_dead_letters(
    runtime: CurrentRuntime, context: CurrentContext, body: models.DryRunRequest
) -> models.DryRun:
    """Handle messages and roll everything back: what would take effect, what did before, what would fail."""
    async with runtime.database.transaction(context) as tx:
        details = {"cause": body.cause} if body.cause else {"messages": ",".join(map(str, body.ids))}
        tx.audit(AuditEntry(action=Action.EXECUTE, resource_type="DeadLetter.DryRun", details=details))
    return models.DryRun.of(await rehearsal.dry_run(runtime, body.chosen(), after_id=body.after_id))


@router.post("/redrive", permission=REDRIVE, status_code=202)
async def redrive_dead_letters(tx: Tx, body: models.RedriveRequest) -> models.Run:
    """Begin a run that handles the messages again: here only, in order per key, origin unchanged.

    Nothing has been handled yet when this answers. 409 `selection-changed` when the messages are no
    longer those that were seen; then nothing is decided.
    """
    run_id = await runs.start(tx, body.selection(), rate_per_second=body.rate_per_second, reason=body.reason)
    return models.Run(**asdict(await runs.progress(tx, run_id)))


@router.post("/discard", permission=REDRIVE)
async def discard_dead_letters(
    tx: Tx, runtime: CurrentRuntime, body: models.DiscardRequest
) -> models.Decided:
    """Let messages be. They stay visible, with the reason. Many at once need a second person's approval."""
    return await _discard(tx, runtime, body.selection(), body.reason)


@router.get("/{dead_letter_id}", permission=READ)
async def show_dead_letter(
    tx: Tx, runtime: CurrentRuntime, dead_letter_id: models.LetterNumber
) -> models.DeadLetterPage:
    """All about one message; its private content stays masked."""
    _audit_read(tx, "DeadLetter", dead_letter_id)
    found = await message.page(tx, dead_letter_id, runtime.settings.contracts_dir)
    return models.DeadLetterPage(
        **_of(models.DeadLetter, found.row).model_dump(),
        headers=found.headers,
        payload=models.ShownPayload(**vars(found.payload)),
        schema_check=models.SchemaResult(**vars(found.schema)),
        attempts=_all(models.Attempt, found.attempts),
        in_inbox_at=found.in_inbox_at,
        before=_all(models.DeadLetter, found.before),
        after=_all(models.DeadLetter, found.after),
        runs=found.runs,
    )


@router.post("/{dead_letter_id}/reveal", permission=REVEAL, idempotency=Idempotency.NONE)
async def reveal_dead_letter(
    tx: Tx, dead_letter_id: models.LetterNumber, body: models.ReasonGiven
) -> models.Revealed:
    """Show a message's content, for a reason. It stands in the patient's access log."""
    said, raw = await message.reveal(tx, dead_letter_id, reason=body.reason)
    if said is None:
        return models.Revealed(data=None, private=None, text=raw.decode(errors="replace"))
    return models.Revealed(data=said.data, private=said.private, text=None)


@router.post("/{dead_letter_id}/dry-run", permission=REDRIVE, transactional=False)
async def try_dead_letter(
    runtime: CurrentRuntime, context: CurrentContext, dead_letter_id: models.LetterNumber
) -> models.DryRun:
    """Handle a message and roll it back, to see whether it would succeed now."""
    async with runtime.database.transaction(context) as tx:
        await listing.shown(tx, dead_letter_id)
    return await try_dead_letters(runtime, context, models.DryRunRequest(ids=[dead_letter_id]))


@router.post("/{dead_letter_id}/redrive", permission=REDRIVE, status_code=202)
async def redrive_dead_letter(tx: Tx, dead_letter_id: models.LetterNumber) -> models.Run:
    """Begin a run of this one message."""
    await listing.shown(tx, dead_letter_id)
    run_id = await runs.start(tx, Selection(ids=[dead_letter_id]))
    return models.Run(**asdict(await runs.progress(tx, run_id)))


@router.post("/{dead_letter_id}/discard", permission=REDRIVE)
async def discard_dead_letter(
    tx: Tx, runtime: CurrentRuntime, dead_letter_id: models.LetterNumber, body: models.ReasonGiven
) -> models.Decided:
    """Let a message be. It stays visible, with the reason."""
    await listing.shown(tx, dead_letter_id)
    return await _discard(tx, runtime, Selection(ids=[dead_letter_id]), body.reason)


@router.post("/{dead_letter_id}/correct", permission=CORRECT, status_code=201, idempotency=Idempotency.NONE)
async def correct_dead_letter(
    tx: Tx, runtime: CurrentRuntime, dead_letter_id: models.LetterNumber, body: models.CorrectionRequest
) -> models.Corrected:
    """Make a corrected copy that stands for the message here. It is parked until somebody redrives it."""
    await listing.shown(tx, dead_letter_id)
    copy_id = await corrections.correct(
        tx,
        dead_letter_id,
        patch=body.patch,
        body=body.whole(),
        reason=body.reason,
        folder=runtime.settings.contracts_dir,
    )
    return models.Corrected(copy_id=copy_id)


async def _discard(tx: Transaction, runtime: Any, selection: Selection, reason: str) -> models.Decided:
    limit = runtime.settings.dead_letters_discarded_alone
    done = await discards.discard(tx, selection, reason=reason, alone_at_most=limit)
    return models.Decided(**asdict(done))


async def _decisions(tx: Transaction, *, pending_only: bool = False) -> list[models.Decision]:
    found = await discards.listed(tx, pending_only=pending_only)
    return [models.Decision(**asdict(one)) for one in found]


def _of(model: type[Document], row: Row[Any]) -> Document:
    return model(**{name: row._mapping[name] for name in model.model_fields})  # noqa: SLF001  # public, by its documentation


def _all(model: type[Document], rows: Sequence[Row[Any]]) -> list[Document]:
    return [_of(model, row) for row in rows]


def _audit_read(tx: Transaction, resource: str, resource_id: object = None) -> None:
    tx.audit(
        AuditEntry(
            action=Action.READ,
            resource_type=f"Operations.{resource}",
            resource_id=str(resource_id) if resource_id is not None else None,
        )
    )
