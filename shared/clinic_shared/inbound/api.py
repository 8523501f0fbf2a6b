"""`/v1/ops/messages`: what outside senders gave us, and what people decide about what could not be processed.

Everything is audited, looking included. Content is shown by `reveal` alone, which has a permission of its own.
"""

from dataclasses import asdict
from typing import Annotated
from uuid import UUID

from fastapi import Query

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.dead_letters.models import ReasonGiven
from clinic_shared.inbound import decisions, listing, models, rehearsal
from clinic_shared.inbound.registry import Inbound
from clinic_shared.paging import PageQuery, page_of
from clinic_shared.routing import ClinicRouter, CurrentContext, CurrentRuntime, Idempotency, Tx

READ = "ops.read"
REPROCESS = "ops.redrive"
REVEAL = "ops.reveal"
CORRECT = "ops.correct"
APPROVE = "ops.approve"

router = ClinicRouter(prefix="/v1/ops/messages", tags=["operations"])


@router.get("", permission=READ)
async def list_inbound_messages(
    tx: Tx, page: PageQuery, chosen: Annotated[models.MessageFilter, Query()]
) -> models.InboundMessages:
    """Messages that outside senders gave us, the newest first; what is parked by cause, and decisions."""
    _audit(tx, Action.READ)
    rows = await listing.listed(tx, chosen.wanted(), before=page.after, limit=page.limit + 1)
    found = page_of([models.InboundMessage.of(row) for row in rows], page, key=lambda message: message.id)
    asked = [
        models.MessageDecision(**{**row._mapping, "count": len(row.intake_ids)})  # noqa: SLF001  # public, by its documentation
        for row in await decisions.listed(tx)
    ]
    groups = [models.ParkedGroup(**asdict(group)) for group in await listing.groups(tx)]
    return models.InboundMessages(
        items=found.items, next_cursor=found.next_cursor, groups=groups, decisions=asked
    )


@router.post("/dry-run", permission=REPROCESS, transactional=False)
async def try_inbound_messages(
    runtime: CurrentRuntime, context: CurrentContext, body: models.MessageSelection
) -> models.MessageDryRun:
    """Process messages as they would be now, and roll everything back: parked ones, or a laboratory's processed ones."""
    async with runtime.database.transaction(context) as tx:
        _audit(tx, Action.EXECUTE, decision="dry-run")
    tried = await rehearsal.dry_run(runtime, ids=body.ids, cause=body.cause)
    return models.MessageDryRun(items=[models.RehearsedMessage(**asdict(one)) for one in tried])


@router.post("/reprocess", permission=REPROCESS)
async def reprocess_inbound_messages(
    tx: Tx, runtime: CurrentRuntime, body: models.MessageReprocessRequest
) -> models.MessageCount:
    """Let messages be processed again, in the order in which they came, with today's parser and maps.

    Parked ones, or laboratories' that were rejected or applied, named by id: a correction is made only of what is
    understood otherwise now.

    409 `selection-changed` when they are no longer those that were seen; then nothing is decided.
    """
    repeatable = Inbound.of(runtime).repeatable
    count = await decisions.reprocess(tx, body.chosen(), reason=body.reason, repeatable=repeatable)
    return models.MessageCount(count=count)


@router.post("/discard", permission=REPROCESS)
async def ask_to_discard_inbound_messages(
    tx: Tx, body: models.MessageDiscardRequest
) -> models.MessageDiscardAsked:
    """Ask to let parked messages be. Nothing changes until a second person approves."""
    return models.MessageDiscardAsked(
        decision_id=await decisions.ask_to_discard(tx, body.chosen(), reason=body.reason)
    )


@router.post("/decisions/{decision_id}/approve", permission=APPROVE)
async def approve_inbound_message_decision(tx: Tx, decision_id: UUID) -> models.MessageCount:
    """Agree as the second person: the messages are discarded now. Not for whoever asked."""
    return models.MessageCount(count=await decisions.approve(tx, decision_id))


@router.post("/decisions/{decision_id}/reject", permission=APPROVE)
async def reject_inbound_message_decision(
    tx: Tx, decision_id: UUID, body: ReasonGiven
) -> models.MessageCount:
    """Refuse, or withdraw one's own request. The messages stay as they are."""
    await decisions.reject(tx, decision_id, reason=body.reason)
    return models.MessageCount(count=0)


@router.get("/{message_id}", permission=READ)
async def show_inbound_message(
    tx: Tx, runtime: CurrentRuntime, message_id: UUID
) -> models.InboundMessagePage:
    """All about one message, its way and what became of it; its content stays masked."""
    _audit(tx, Action.READ, about=message_id)
    row = await listing.shown(tx, message_id)
    fates = await listing.fates(tx, row, Inbound.of(runtime).interfaces)
    return models.InboundMessagePage(
        **models.InboundMessage.of(row).model_dump(),
        envelope=listing.envelope(row.attributes),
        fates=[models.MessageFate(disposition=fate.disposition, reason=fate.reason) for fate in fates],
        history=[models.MessageStep(**asdict(step)) for step in await listing.history(tx, row)],
    )


@router.post("/{message_id}/reveal", permission=REVEAL, idempotency=Idempotency.NONE)
async def reveal_inbound_message(tx: Tx, message_id: UUID, body: ReasonGiven) -> models.RevealedMessage:
    """Show a message as it came, for a reason, which is audited."""
    raw, answer = await listing.reveal(tx, message_id, reason=body.reason)
    return models.RevealedMessage.of(raw, answer)


@router.post("/{message_id}/correct", permission=CORRECT, status_code=201, idempotency=Idempotency.NONE)
async def correct_inbound_message(
    tx: Tx, message_id: UUID, body: models.MessageCorrectionRequest
) -> models.CorrectedMessage:
    """Put a corrected copy in a parked message's place: it is processed; the original stays, and says so."""
    copy_id = await decisions.correct(tx, message_id, body.body, reason=body.reason)
    return models.CorrectedMessage(copy_id=copy_id)


def _audit(tx: Transaction, action: Action, *, about: UUID | None = None, **details: str) -> None:
    tx.audit(
        AuditEntry(
            action=action,
            resource_type="Operations.InboundMessage",
            resource_id=about,
            details=details,
        )
    )
