"""The second answer in enhanced mode: the application acknowledgement, once a message has been processed.

Owed where MSH-15 and MSH-16 both want an answer (HL7 v2.5.1, 2.9.3). It is made from the message as often as it is
asked for, always in the same bytes: over MLLP on the connection that brought the message, else by the partner's
callback or fetched. A message that can't be processed yet owes it still.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.errors import DomainError, NotFoundError
from clinic_shared.intake import Item, body_of, intake_table
from sqlalchemy import Row, select

from clinic_lab_integration import callbacks, messages
from clinic_lab_integration.hl7 import ErrorCode, Finding, Location
from clinic_lab_integration.messages import INTERFACE, MessageNote

OVER_MLLP = "application/hl7-v2; transport=mllp"
"""The content type of what came over a connection that is still there to be answered on."""

_LET_BE = Finding(
    ErrorCode.APPLICATION_INTERNAL_ERROR, Location("MSH"), "The clinic has decided not to use this message"
)


class NotProcessedYetError(DomainError):
    """The message is durable, as its first acknowledgement says, and waits to be processed."""

    slug = "message-not-processed-yet"
    title = "There is no application acknowledgement yet"
    fix = "Ask again after `Retry-After`; the message need not be sent again."
    retry_after_seconds = 5


async def of_message(tx: Transaction, message_id: UUID) -> bytes:
    """Return a message's second answer. Raises NotFoundError where one answer is all, NotProcessedYetError."""
    row = await tx.fetch_one(_messages().where(intake_table.c.id == message_id))
    if row is None or not MessageNote.read(row.attributes).answers_later:
        raise NotFoundError("Only one acknowledgement was asked for (MSH-15, MSH-16), and it was given.")
    if row.state != "processed":
        raise NotProcessedYetError
    return _answer(tx, row)


async def ready(tx: Transaction, message_ids: Sequence[UUID]) -> dict[UUID, bytes]:
    """Return the second answers of those messages that have been processed, in the order in which they came."""
    columns = intake_table.c
    rows = await tx.fetch_all(
        _messages().where(columns.id.in_(message_ids), columns.state == "processed").order_by(columns.id)
    )
    return {row.id: _answer(tx, row) for row in rows}


async def send_by_callback(tx: Transaction, item: Item, note: MessageNote) -> None:
    """Have the partner called with it, unless it is answered on its connection."""
    if note.answers_later and item.content_type != OVER_MLLP:
        message = messages.read_again(item.body, note)
        answer = message.application_answer(at=tx.now)
        text = answer.decode(message.charset.codec, "replace")
        await callbacks.tell_acknowledged(tx, item, note, text)


def _messages() -> Any:
    columns = intake_table.c
    return select(
        columns.id,
        columns.data_key,
        columns.body,
        columns.attributes,
        columns.state,
        columns.set_aside,
        columns.received_at,
        columns.processed_at,
    ).where(columns.interface == INTERFACE)


def _answer(tx: Transaction, row: Row[Any]) -> bytes:
    message = messages.read_again(body_of(tx, row), MessageNote.read(row.attributes))
    findings = [_LET_BE] if row.set_aside == "discarded" else []
    return message.application_answer(findings, at=row.processed_at or row.received_at)
