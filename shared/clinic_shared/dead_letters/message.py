"""One message in full: envelope, payload, contract, attempts, and its neighbours in the order of its key.

A payload shows only what its contract promises to be free of personal data and what is as promised; the
rest is masked until somebody who may reveals it, with a reason.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select

from clinic_shared import contracts
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.contracts import ContractViolationError, UnknownContractError
from clinic_shared.database import Transaction
from clinic_shared.dead_letters.corrections import Body, read_body
from clinic_shared.dead_letters.listing import COLUMNS, shown
from clinic_shared.dead_letters.selection import letter, order
from clinic_shared.dead_letters.tables import item_table
from clinic_shared.envelope import EVENT_TYPE, PREFIX
from clinic_shared.events import Origin
from clinic_shared.held import attempt_table, body_of
from clinic_shared.inbox import inbox

MOST_ATTEMPTS = 50
MOST_NEIGHBOURS = 20
MASK = "•••"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_INSTANT = re.compile(r"[0-9:.T+Z-]{10,40}")
_NUMBER = re.compile(r"[0-9]{1,18}")
_ATTRIBUTES = {
    **dict.fromkeys(("id", "subject", "partitionkey", "correlationid", "causationid", "correctionof"), _UUID),
    **dict.fromkeys(("time", "recordedtime"), _INSTANT),
    **dict.fromkeys(("aggregateversion", "schemaversion"), _NUMBER),
    "type": EVENT_TYPE,
    "dataschema": re.compile(f"urn:polyclinic:event:{EVENT_TYPE.pattern}"),
    "traceparent": re.compile(r"[0-9a-f]{2}(-[0-9a-f]+){3}"),
    "origin": re.compile("|".join(Origin)),
    "seal": re.compile(r"[a-z0-9-]{1,20}"),
    "specversion": re.compile(r"[0-9.]{1,10}"),
}
"""The headers that are shown, and what they look like; anything else is not of our making."""


@dataclass(frozen=True, kw_only=True)
class SchemaCheck:
    """Whether the message is what its contract promises; None when there is no such contract."""

    matches: bool | None
    problems: list[str]


@dataclass(frozen=True, kw_only=True)
class Payload:
    """`data` with what must not be shown masked; which `private` fields there are; how many others."""

    readable: bool
    data: dict[str, Any]
    private_fields: list[str]
    undeclared: int


@dataclass(frozen=True, kw_only=True)
class Message:
    """The page of a message."""

    row: Row[Any]
    headers: dict[str, str | int]
    payload: Payload
    schema: SchemaCheck
    attempts: Sequence[Row[Any]]
    in_inbox_at: datetime | None
    before: Sequence[Row[Any]]
    after: Sequence[Row[Any]]
    runs: list[UUID]


async def page(tx: Transaction, row_id: int, folder: Path) -> Message:
    """Raises NotFoundError."""
    row = await shown(tx, row_id)
    body = read_body(row, body_of(tx, row))
    schema, declared = _check(row.type, body, folder)
    place = row.place or row.id
    neighbours = select(*COLUMNS).where(letter.partition_key == row.partition_key, letter.id != row.id)
    before = neighbours.where(order <= place).order_by(order.desc(), letter.id.desc())
    after = neighbours.where(order > place).order_by(order, letter.id)
    return Message(
        row=row,
        headers=_headers(row.headers, contracts.load(folder).services),
        payload=_payload(body, schema, declared),
        schema=schema,
        attempts=await _attempts(tx, row_id),
        in_inbox_at=await _in_inbox(tx, row.root_event_id or row.event_id),
        before=list(reversed(await tx.fetch_all(before.limit(MOST_NEIGHBOURS)))),
        after=await tx.fetch_all(after.limit(MOST_NEIGHBOURS)),
        runs=await _runs(tx, row_id),
    )


async def _in_inbox(tx: Transaction, event_id: UUID) -> datetime | None:
    row = await tx.fetch_one(
        select(inbox.c.processed_at).where(inbox.c.consumer == tx.service, inbox.c.event_id == event_id)
    )
    return row.processed_at if row is not None else None


async def reveal(tx: Transaction, row_id: int, *, reason: str) -> tuple[Body | None, bytes]:
    """Return what a message says, and its bytes. Who looked and why stands in the patient's access log."""
    row = await shown(tx, row_id)
    raw = body_of(tx, row)
    body = read_body(row, raw)
    tx.audit(
        AuditEntry(
            action=Action.READ,
            resource_type="DeadLetter",
            resource_id=str(row_id),
            patient_id=_patient_of(body),
            reason=reason,
            details={"decision": "reveal", "event": str(row.event_id)},
        )
    )
    return body, raw


def _patient_of(body: Body | None) -> UUID | None:
    try:
        return UUID(str(body.data["patient_id"])) if body is not None else None
    except (KeyError, ValueError):
        return None


async def _attempts(tx: Transaction, row_id: int) -> Sequence[Row[Any]]:
    table = attempt_table.c
    statement = select(attempt_table).where(table.held_id == row_id).order_by(table.id.desc())
    return list(reversed(await tx.fetch_all(statement.limit(MOST_ATTEMPTS))))


async def _runs(tx: Transaction, row_id: int) -> list[UUID]:
    statement = select(item_table.c.run_id).where(item_table.c.held_id == row_id)
    return list((await tx.execute(statement.order_by(item_table.c.run_id))).scalars())


def _headers(headers: Mapping[str, Any], services: Collection[str]) -> dict[str, str | int]:
    named = {name.removeprefix(PREFIX): value for name, value in sorted(headers.items())}
    shown = {
        name: value if _ATTRIBUTES[name].fullmatch(str(value)) else MASK
        for name, value in named.items()
        if name in _ATTRIBUTES
    }
    source = named.get("source")
    return shown if source is None else {**shown, "source": source if source in services else MASK}


def _check(event_type: str, body: Body | None, folder: Path) -> tuple[SchemaCheck, dict[str, set[str]]]:
    """Return the result, and the names that the contract declares: in each part, and anywhere."""
    known = contracts.load(folder)
    try:
        schema = known.schema(event_type)
    except UnknownContractError:
        return SchemaCheck(matches=None, problems=[]), {"data": set(), "private": set()}
    properties = schema["properties"]
    declared = {part: set(properties.get(part, {}).get("properties", {})) for part in ("data", "private")}
    if body is None:
        return SchemaCheck(matches=False, problems=["/ (unreadable)"]), declared
    try:
        known.validate_event(event_type, body.data, body.private)
    except ContractViolationError as violation:
        names = set(_names(schema))
        return SchemaCheck(
            matches=False, problems=[_told(one, names) for one in violation.problems]
        ), declared
    return SchemaCheck(matches=True, problems=[]), declared


def _names(schema: Any) -> Iterator[str]:
    """Return all member names that a schema declares: others are the sender's, and may say anything."""
    if isinstance(schema, dict):
        properties = schema.get("properties")
        yield from properties if isinstance(properties, dict) else ()
        for child in schema.values():
            yield from _names(child)
    elif isinstance(schema, list):
        for child in schema:
            yield from _names(child)


def _told(problem: str, names: set[str]) -> str:
    pointer, _, rule = problem.rpartition(" ")
    steps = (step if step in names or step.isdecimal() else "*" for step in pointer.split("/")[1:] if step)
    return "/" + "/".join(steps) + f" {rule}"


def _payload(body: Body | None, schema: SchemaCheck, declared: Mapping[str, set[str]]) -> Payload:
    if body is None:
        return Payload(readable=False, data={}, private_fields=[], undeclared=0)
    wrong = {
        problem.split(" ")[0].split("/")[2] for problem in schema.problems if problem.startswith("/data/")
    }
    private = body.private or {}
    undeclared = (body.data.keys() - declared["data"]) | (private.keys() - declared["private"])
    return Payload(
        readable=True,
        data={
            name: MASK if name in wrong else value
            for name, value in body.data.items()
            if name in declared["data"]
        },
        private_fields=sorted(private.keys() & declared["private"]),
        undeclared=len(undeclared),
    )
