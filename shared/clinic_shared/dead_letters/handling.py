"""How a kept message takes effect, whoever asks for it: the schedule, a redrive run, a dry run."""

from dataclasses import replace
from typing import Any

from sqlalchemy import Row

from clinic_shared.consumer import Disposition, Handlers, take_effect
from clinic_shared.crash import mutated
from clinic_shared.database import Transaction
from clinic_shared.envelope import Envelope
from clinic_shared.held import body_of


def envelope_of(row: Row[Any]) -> Envelope:
    """Return the envelope that a kept message takes effect with. Raises MalformedMessageError.

    A corrected copy does so as its original: of both, the inbox lets only one, once.
    """
    envelope = Envelope.from_headers(row.headers)
    if row.root_event_id is None or mutated("copy-beside-original"):
        return envelope
    return replace(envelope, id=row.root_event_id)


async def handle(tx: Transaction, handlers: Handlers, row: Row[Any]) -> Disposition:
    """Let a kept message take effect in a transaction that the caller commits."""
    return await take_effect(tx, handlers, envelope_of(row), body_of(tx, row))
