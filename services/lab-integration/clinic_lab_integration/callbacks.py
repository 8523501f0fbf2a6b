"""Telling a laboratory what became of a message after its acknowledgement: a row with the fact, then a signed call.

Signed as Standard Webhooks has it (HMAC-SHA256 over id, time and body). The key is the SHA-256 digest of the
client secret, which both sides have; while a secret is replaced there is a signature for each.
"""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, cast
from uuid import UUID

import httpx
import orjson
import structlog
from clinic_shared import metrics
from clinic_shared.database import Transaction
from clinic_shared.destinations import GuardedTransport
from clinic_shared.events import wire_instant
from clinic_shared.health import Health
from clinic_shared.ids import uuid7
from clinic_shared.intake import Item
from clinic_shared.lookout import Lookout
from clinic_shared.loops import keep_running
from clinic_shared.service import Runtime
from prometheus_client import Counter
from sqlalchemy import Row, func, insert, select, update

from clinic_lab_integration import store
from clinic_lab_integration.messages import MessageNote
from clinic_lab_integration.settings import LabSettings
from clinic_lab_integration.tables import lab_callback
from clinic_lab_integration.unit_store import Unit

log = structlog.get_logger()

NAME = "lab-callbacks"
SCHEDULE = tuple(
    timedelta(seconds=s) for s in (30, 120, 600, 3600, 6 * 3600, 12 * 3600, 24 * 3600, 24 * 3600)
)
POLL_SECONDS = 1.0
_DUE = "SELECT 1 FROM lab_callback WHERE state = 'waiting' AND next_attempt_at <= now()"
CALL_SECONDS = 10.0

CALLS = Counter(
    "clinic_lab_callbacks_total",
    "Calls that told a laboratory what became of a message",
    ["outcome"],
    registry=metrics.REGISTRY,
)


async def tell_rejected(tx: Transaction, unit: Unit, note: MessageNote, reason: str) -> None:
    """Have the laboratory told that a group it holds for taken is rejected. Without an address it isn't."""
    what = _Fact(
        type="lab-message.rejected",
        message_id=unit.message_id,
        received_at=unit.received_at,
        group_index=unit.group_index,
    )
    await _tell(tx, what, note, group_index=unit.group_index, reason=reason)


async def tell_acknowledged(tx: Transaction, item: Item, note: MessageNote, answer: str) -> None:
    """Have the laboratory given its application acknowledgement. Without an address it fetches it."""
    what = _Fact(type="lab-message.acknowledged", message_id=item.id, received_at=item.received_at)
    await _tell(tx, what, note, acknowledgement=answer)


@dataclass(frozen=True, kw_only=True)
class _Fact:
    """What a call tells of. One about a whole message stands with its first group."""

    type: str
    message_id: UUID
    received_at: datetime
    group_index: int = 0


async def _tell(tx: Transaction, fact: _Fact, note: MessageNote, **told: object) -> None:
    partner_id = UUID(note.partner_id)
    partner = await store.find_partner(tx, partner_id)
    if partner is None or partner.connection.callback_url is None:
        return
    body = {
        "type": fact.type,
        "timestamp": wire_instant(tx.now),
        "data": {
            "message_id": str(fact.message_id),
            "control_id": note.control_id,
            "received_at": wire_instant(fact.received_at),
            "location": f"/v1/lab/messages/{fact.message_id}",
            **told,
        },
    }
    await tx.execute(
        insert(lab_callback).values(
            callback_id=uuid7(),
            partner_id=partner_id,
            message_id=fact.message_id,
            group_index=fact.group_index,
            state="waiting",
            body=orjson.dumps(body),
            attempts=0,
            next_attempt_at=tx.now,
            created_at=tx.now,
        )
    )


def sign(callback_id: UUID, at: datetime, body: bytes, secret_digests: Sequence[str]) -> dict[str, str]:
    """The headers of a call (https://www.standardwebhooks.com). A digest is written `sha256:` and hexadecimal."""
    seconds = str(int(at.timestamp()))
    signed = b".".join((str(callback_id).encode(), seconds.encode(), body))
    keys = [bytes.fromhex(digest.removeprefix("sha256:")) for digest in secret_digests]
    signatures = [base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys]
    return {
        "webhook-id": str(callback_id),
        "webhook-timestamp": seconds,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


# -- calling


async def send_callbacks(runtime: Runtime, stop: asyncio.Event) -> None:
    """Call laboratories for as long as the process runs."""
    async with client_of(runtime) as http:
        health = Health.of(runtime)
        await keep_running(NAME, stop, partial(_work, runtime, http, stop, health), health)


def client_of(runtime: Runtime) -> httpx.AsyncClient:
    """What laboratories are called with: it connects where `Destinations` lets it."""
    guarded = GuardedTransport(cast("LabSettings", runtime.settings).destinations)
    return httpx.AsyncClient(timeout=CALL_SECONDS, follow_redirects=False, trust_env=False, transport=guarded)


async def _work(runtime: Runtime, http: httpx.AsyncClient, stop: asyncio.Event, health: Health) -> None:
    duty = Lookout.of(runtime).duty(NAME, _DUE, every_seconds=POLL_SECONDS)
    while not stop.is_set():
        if not await call_next(runtime, http):
            health.report(NAME, None)
            await duty.wait(stop)


async def call_next(runtime: Runtime, http: httpx.AsyncClient) -> bool:
    """Make the call that is due longest. Returns False when none is."""
    async with runtime.database.transaction() as tx:
        row = await _claim(tx)
        partner = await store.find_partner(tx, row.partner_id) if row is not None else None
    if row is None:
        return False
    url = partner.connection.callback_url if partner is not None else None
    digests = partner.secret_digests if partner is not None else ()
    status = 0
    if url is not None:
        headers = sign(row.callback_id, runtime.clock.now(), row.body, digests)
        status = await _call(http, url, row.body, headers)
    async with runtime.database.transaction() as tx:
        await _note_outcome(tx, row, status)
    return True


async def _claim(tx: Transaction) -> Row[Any] | None:
    """Take one; its next attempt is set at once, so that a process that dies has called at most once more."""
    row = await tx.fetch_one(
        select(lab_callback)
        .where(lab_callback.c.state == "waiting", lab_callback.c.next_attempt_at <= tx.now)
        .order_by(lab_callback.c.next_attempt_at, lab_callback.c.callback_id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if row is not None:
        pause_ = SCHEDULE[min(row.attempts, len(SCHEDULE) - 1)]
        await tx.execute(
            update(lab_callback)
            .where(lab_callback.c.callback_id == row.callback_id)
            .values(attempts=row.attempts + 1, next_attempt_at=tx.now + pause_)
        )
    return row


async def _call(http: httpx.AsyncClient, url: str, body: bytes, headers: dict[str, str]) -> int:
    """Return the answer's status, 0 for none."""
    try:
        answer = await http.post(url, content=body, headers={"content-type": "application/json"} | headers)
    except httpx.HTTPError as error:
        log.info("lab_callback_unanswered", error_class=type(error).__name__)
        return 0
    return answer.status_code


async def _note_outcome(tx: Transaction, row: Row[Any], status: int) -> None:
    delivered = 200 <= status < 300  # noqa: PLR2004  # any success
    given_up = not delivered and row.attempts + 1 > len(SCHEDULE)
    state = "delivered" if delivered else "failed" if given_up else "waiting"
    await tx.execute(
        update(lab_callback)
        .where(lab_callback.c.callback_id == row.callback_id)
        .values(state=state, last_status=status or None, delivered_at=tx.now if delivered else None)
    )
    tx.count(CALLS.labels(outcome=state).inc)
    if given_up:
        log.error("lab_callback_failed", callback_id=row.callback_id, partner_id=row.partner_id)


async def count_callbacks(tx: Transaction, partner_id: UUID) -> dict[str, int]:
    rows = await tx.fetch_all(
        select(lab_callback.c.state, func.count().label("calls"))
        .where(lab_callback.c.partner_id == partner_id)
        .group_by(lab_callback.c.state)
    )
    return {row.state: row.calls for row in rows}
