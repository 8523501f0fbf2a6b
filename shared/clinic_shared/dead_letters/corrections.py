"""Corrected copies: a person mends what a message says, and the copy is handled in the original's place.

The original stays as it came, marked as superseded. The copy is an event of its own here and nowhere
else; it claims the original's place in the inbox as well, so that only one of both ever takes effect.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Row, insert, select, update

from clinic_shared import contracts
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.contracts import ContractViolationError, UnknownContractError
from clinic_shared.database import Transaction
from clinic_shared.dead_letters.selection import Selection
from clinic_shared.envelope import PREFIX, encode_body
from clinic_shared.errors import DomainError, InvalidRequestError
from clinic_shared.failures import fingerprint
from clinic_shared.held import body_of, held_table, sealed_body
from clinic_shared.ids import uuid7
from clinic_shared.inbox import inbox
from clinic_shared.sealing import UnknownSealError, seal, unseal

CORRECTION_OF = PREFIX + "correctionof"
ERROR = "Corrected: waits to be redriven"


class ContractRefusesError(InvalidRequestError):
    """What the message would say after the correction doesn't match the contract of its event."""

    slug = "contract-refuses"
    title = "The corrected message does not match its contract"
    fix = "`problems` names each place and rule; the schema stands in contracts/events."


class AlreadyAppliedError(DomainError):
    """The message has taken effect here, so a copy of it would be a second effect."""

    slug = "already-applied"
    title = "The message has taken effect"
    fix = "If its effect was wrong, change that through the service's own operations."


class UnreadableError(DomainError):
    """The message's content isn't readable, so it can't be changed in part."""

    slug = "unreadable-content"
    title = "The message can't be read"
    fix = "Give the whole body instead of a patch."


@dataclass(frozen=True, kw_only=True)
class Body:
    """What an event says, readable."""

    data: dict[str, Any]
    private: dict[str, Any] | None


def read_body(row: Row[Any], raw: bytes) -> Body | None:
    """Return what a kept message with these bytes says, or None when that can't be read."""
    try:
        document = orjson.loads(raw)
        data, private = document["data"], document.get("private")
        if private is not None:
            private = dict(unseal(private, row.headers.get(PREFIX + "seal")))
        return Body(data=dict(data), private=private)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError, UnknownSealError):
        return None


def merged(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7396)."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def patched(row: Row[Any], raw: bytes, patch: Mapping[str, Any]) -> Body:
    """Raises UnreadableError, InvalidRequestError."""
    readable = read_body(row, raw)
    if readable is None:
        raise UnreadableError
    document = merged({"data": readable.data, "private": readable.private}, patch)
    data, private = document.get("data"), document.get("private")
    if not isinstance(data, dict) or not (private is None or isinstance(private, dict)):
        raise InvalidRequestError("An event says `data` and `private`, both objects.")
    return Body(data=data, private=private)


async def correct(
    tx: Transaction,
    row_id: int,
    *,
    patch: Mapping[str, Any] | None,
    body: Body | None,
    reason: str,
    folder: Path,
) -> int:
    """Make a parked copy that says something else; returns its id. It takes effect when it is redriven.

    Raises SelectionChangedError, ContractRefusesError, AlreadyAppliedError, UnreadableError.
    """
    (locked,) = await Selection(ids=[row_id], discarded=True).lock(tx)
    original = (await tx.execute(select(held_table).where(held_table.c.id == locked.id))).one()
    root = original.root_event_id or original.event_id
    applied = select(inbox.c.event_id).where(inbox.c.consumer == tx.service, inbox.c.event_id == root)
    if await tx.fetch_one(applied) is not None:
        raise AlreadyAppliedError
    raw = body_of(tx, original)
    corrected = body if body is not None else patched(original, raw, patch or {})
    _check(original, corrected, folder)
    content, copy = _copy(tx, original, corrected, root)
    copy_id = int(
        (await tx.execute(insert(held_table).values(**copy).returning(held_table.c.id))).scalar_one()
    )
    await tx.execute(
        update(held_table)
        .where(held_table.c.id == original.id)
        .values(
            state="discarded",
            superseded_by=copy_id,
            next_attempt_at=None,
            decided_by=tx.context.principal.subject,
            decided_at=tx.now,
            reason=reason,
        )
    )
    _audit(tx, original, copy_id, before=raw, after=content, reason=reason)
    return copy_id


def _check(original: Row[Any], corrected: Body, folder: Path) -> None:
    try:
        contracts.load(folder).validate_event(original.type, corrected.data, corrected.private)
    except UnknownContractError:
        raise ContractRefusesError(
            "Nobody publishes this event, so nobody can say what it may say."
        ) from None
    except orjson.JSONEncodeError:
        raise ContractRefusesError("It has a number that no contract allows.") from None
    except ContractViolationError as violation:
        raise ContractRefusesError(problems=violation.problems) from None


def _copy(tx: Transaction, original: Row[Any], corrected: Body, root: object) -> tuple[bytes, dict[str, Any]]:
    """Return what the copy says, and its row."""
    event_id = uuid7()
    private, seal_name = seal(corrected.private)
    headers = {**original.headers, PREFIX + "id": str(event_id), CORRECTION_OF: str(root)}
    headers.pop(PREFIX + "seal", None)
    if seal_name is not None:
        headers[PREFIX + "seal"] = seal_name
    content = encode_body(corrected.data, private)
    return content, {
        **sealed_body(tx, event_id, content),
        "event_id": event_id,
        "partition_key": original.partition_key,
        "type": original.type,
        "queue": original.queue,
        "headers": headers,
        "state": "parked",
        "cause": fingerprint(tx.service, original.type, ERROR),
        "error": ERROR,
        "attempt": 0,
        "first_failed_at": original.first_failed_at,
        "last_failed_at": tx.now,
        "place": original.place or original.id,
        "root_event_id": root,
        "corrects": original.id,
    }


def _audit(
    tx: Transaction, original: Row[Any], copy_id: int, *, before: bytes, after: bytes, reason: str
) -> None:
    """Record that the content was changed, by its hashes: the record must not hold what it said."""
    tx.audit(
        AuditEntry(
            action=Action.UPDATE,
            resource_type="DeadLetter",
            resource_id=str(original.id),
            reason=reason,
            details={
                "decision": "correct",
                "event": str(original.event_id),
                "copy": str(copy_id),
                "sha256_before": hashlib.sha256(before).hexdigest(),
                "sha256_after": hashlib.sha256(after).hexdigest(),
            },
        )
    )
