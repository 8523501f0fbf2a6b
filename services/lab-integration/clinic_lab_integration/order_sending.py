"""Orders on their way to laboratories: sent outside transactions until they are answered for.

What is to be told is a row, committed with the order. A worker leases it, sends it, and keeps the answer; who
dies in between leaves a lease that runs out, and the laboratory gets the same message again, control id included.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import httpx
import structlog
from clinic_shared import metrics
from clinic_shared.audit import Action, AuditEntry, Outcome
from clinic_shared.crash import crash_point
from clinic_shared.database import Transaction
from clinic_shared.destinations import DestinationRefusedError, GuardedTransport
from clinic_shared.errors import TransferNotAllowedError
from clinic_shared.health import Health
from clinic_shared.lookout import Lookout
from clinic_shared.loops import keep_running
from clinic_shared.service import Runtime
from prometheus_client import Counter, Gauge
from sqlalchemy import func

from clinic_lab_integration import order_store, store
from clinic_lab_integration.hl7 import assess
from clinic_lab_integration.hl7.framing import END, START, BlockReader
from clinic_lab_integration.order_messages import Destination, Format, Requested, as_fhir, as_hl7
from clinic_lab_integration.order_store import Transmission
from clinic_lab_integration.settings import LabSettings

log = structlog.get_logger()

NAME = "lab-orders"
POLL_SECONDS = 0.5
_DUE = "SELECT 1 FROM order_transmission WHERE state = 'pending' AND next_attempt_at <= now()"
BATCH = 10
TIMEOUT_SECONDS = 20.0
LEASE = timedelta(seconds=3 * TIMEOUT_SECONDS)
FIRST_DELAY_SECONDS = 2.0
LONGEST_DELAY_SECONDS = 600.0
_MAX_ANSWER_BYTES = 256 * 1024
_READ_BYTES = 16 * 1024
_PASSING = frozenset({408, 409, 425, 429})
_APPLICATION_INTERNAL_ERROR = "207"

SENT = Counter(
    "clinic_lab_orders_sent_total",
    "Attempts to tell a laboratory of an order",
    ["outcome"],
    registry=metrics.REGISTRY,
)
WAITING = Gauge(
    "clinic_lab_orders_waiting", "Orders that laboratories have not answered for", registry=metrics.REGISTRY
)
OLDEST_SECONDS = Gauge(
    "clinic_lab_oldest_order_waiting_seconds", "Age of the oldest of them", registry=metrics.REGISTRY
)


class NoAnswerError(Exception):
    """Nobody can say whether the laboratory has it: it is sent again. `code` says why, without content."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Answer:
    accepted: bool
    code: str


async def send_orders(runtime: Runtime, stop: asyncio.Event) -> None:
    """Send what is due, until told to stop."""
    health = Health.of(runtime)
    await keep_running(NAME, stop, partial(_work, runtime, stop, health), health)


async def _work(runtime: Runtime, stop: asyncio.Event, health: Health) -> None:
    duty = Lookout.of(runtime).duty(NAME, _DUE, every_seconds=POLL_SECONDS)
    while not stop.is_set():
        if not await send_due(runtime):
            health.report(NAME, None)
            await duty.wait(stop)


async def send_due(runtime: Runtime) -> int:
    """Send up to a batch of what is due, at once; returns how many."""
    async with runtime.database.transaction() as tx:
        leased = await order_store.lease(tx, most=BATCH, lease=LEASE)
    await asyncio.gather(*(_send(runtime, transmission) for transmission in leased))
    return len(leased)


async def _send(runtime: Runtime, transmission: Transmission) -> None:
    async with runtime.database.transaction() as tx:
        prepared = await _prepare(tx, transmission)
    if prepared is None:
        await _settle(runtime, transmission, Answer(accepted=False, code="no-destination"))
        return
    requested, to = prepared
    if to.country is not None and not cast("LabSettings", runtime.settings).may_send_to(to.country):
        await _refuse_transfer(runtime, requested, to.country)
        await _settle(runtime, transmission, Answer(accepted=False, code=TransferNotAllowedError.slug))
        return
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            answer = await _ask(runtime, requested, to)
    except NoAnswerError as error:
        await _postpone(runtime, transmission, error.code)
    except DestinationRefusedError:
        await _postpone(runtime, transmission, "destination-refused")
    except Exception as error:  # whatever one laboratory does, the others get their orders
        log.warning("lab_order_not_sent", lab_order_id=transmission.lab_order_id, exc_info=error)
        await _postpone(runtime, transmission, type(error).__name__)
    else:
        crash_point("lab.order.sent")
        await _settle(runtime, transmission, answer)


async def _prepare(tx: Transaction, transmission: Transmission) -> tuple[Requested, Destination] | None:
    order = await store.find_order(tx, transmission.lab_order_id)
    to = await order_store.find_destination(tx, transmission.partner_id)
    if order is None or to is None:
        return None
    person, identifiers = await order_store.who(tx, order.patient_id)
    requested = Requested(
        action=transmission.action,
        control_id=transmission.control_id,
        order=order,
        person=person,
        identifiers=identifiers,
        requested_at=transmission.requested_at,
    )
    return requested, to


async def _refuse_transfer(runtime: Runtime, requested: Requested, country: str) -> None:
    """Record that an order which was placed before the law, or the settings, changed isn't sent abroad."""
    async with runtime.database.transaction() as tx:
        tx.audit(
            AuditEntry(
                action=Action.EXECUTE,
                outcome=Outcome.DENIED,
                resource_type="ServiceRequest",
                resource_id=requested.order.lab_order_id,
                patient_id=requested.order.patient_id,
                details={"cause": TransferNotAllowedError.slug, "country": country},
            )
        )


async def _postpone(runtime: Runtime, transmission: Transmission, error: str) -> None:
    exponent = min(transmission.attempts - 1, 20)
    delay = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0**exponent)
    SENT.labels(outcome="unanswered").inc()
    log.warning("lab_order_unanswered", lab_order_id=transmission.lab_order_id, error_class=error)
    async with runtime.database.transaction() as tx:
        await order_store.change(
            tx,
            transmission.transmission_id,
            next_attempt_at=func.clock_timestamp() + timedelta(seconds=delay),
            last_error=error,
        )


async def _settle(runtime: Runtime, transmission: Transmission, answer: Answer) -> None:
    SENT.labels(outcome="accepted" if answer.accepted else "refused").inc()
    async with runtime.database.transaction() as tx:
        await order_store.change(
            tx,
            transmission.transmission_id,
            state="acknowledged" if answer.accepted else "refused",
            answer_code=answer.code,
            settled_at=tx.now,
            last_error=None,
        )


# -- asking a laboratory


async def _ask(runtime: Runtime, requested: Requested, to: Destination) -> Answer:
    if to.format is Format.FHIR:
        return await _put_resource(runtime, requested, to)
    message = as_hl7(requested, to, sent_at=runtime.database.clock.now())
    if urlsplit(to.url).scheme in {"mllp", "mllps"}:
        return await _over_mllp(runtime, message, requested.control_id, to)
    async with _client(runtime, to) as client:
        answer = await client.post(
            to.url, content=message, headers={"content-type": "application/hl7-v2; charset=utf-8"}
        )
    _require_success(answer)
    return _read_acknowledgement(answer.content, requested.control_id)


async def _put_resource(runtime: Runtime, requested: Requested, to: Destination) -> Answer:
    url = f"{to.url.rstrip('/')}/ServiceRequest/{requested.order.lab_order_id}"
    async with _client(runtime, to) as client:
        answer = await client.put(
            url, json=as_fhir(requested), headers={"content-type": "application/fhir+json"}
        )
    if answer.is_client_error and answer.status_code not in _PASSING:
        return Answer(accepted=False, code=str(answer.status_code))
    _require_success(answer)
    return Answer(accepted=True, code=str(answer.status_code))


def _require_success(answer: httpx.Response) -> None:
    if not answer.is_success:
        raise NoAnswerError(f"http-{answer.status_code}")


def _client(runtime: Runtime, to: Destination) -> httpx.AsyncClient:
    settings = cast("LabSettings", runtime.settings)
    credentials = settings.order_credentials.get(str(to.partner_id))
    auth = None
    if credentials is not None:
        user, _, password = credentials.get_secret_value().partition(":")
        auth = httpx.BasicAuth(user, password)
    return httpx.AsyncClient(
        timeout=TIMEOUT_SECONDS,
        auth=auth,
        follow_redirects=False,
        trust_env=False,
        transport=GuardedTransport(settings.destinations),
    )


async def _over_mllp(runtime: Runtime, message: bytes, control_id: str, to: Destination) -> Answer:
    url = urlsplit(to.url)
    host, port, is_tls = url.hostname or "", url.port or 0, url.scheme == "mllps"
    address = await cast("LabSettings", runtime.settings).destinations.address_of(host, port)
    reader, writer = await asyncio.open_connection(
        address, port, ssl=is_tls or None, server_hostname=host if is_tls else None
    )
    try:
        writer.write(START + message + END)
        await writer.drain()
        return await _await_answer(reader, control_id)
    finally:
        writer.close()


async def _await_answer(reader: asyncio.StreamReader, control_id: str) -> Answer:
    """Read until the answer to this message comes; one to another message is not taken for it."""
    blocks = BlockReader(_MAX_ANSWER_BYTES)
    while True:
        data = await reader.read(_READ_BYTES)
        if not data:
            raise NoAnswerError("connection-closed")
        for block in blocks.feed(data):
            try:
                return _read_acknowledgement(block.payload, control_id)
            except _OtherMessageError:
                log.info("lab_answer_to_another_message")


class _OtherMessageError(NoAnswerError):
    pass


def _read_acknowledgement(payload: bytes, control_id: str) -> Answer:
    """Read MSA of whatever message it is in (ACK, ORL^O22, ORR^O02). Raises NoAnswerError."""
    message = assess(payload).messages[0].message if payload.strip() else None
    segments = message.all("MSA") if message is not None else ()
    if message is None or not segments:
        raise NoAnswerError("no-acknowledgement")
    code, answers = segments[0].text(1), segments[0].text(2)
    if answers != control_id:
        raise _OtherMessageError("answer-to-another-message")
    if code in {"AA", "CA"}:
        return Answer(accepted=True, code=code)
    if any(error.text(3) == _APPLICATION_INTERNAL_ERROR for error in message.all("ERR")):
        raise NoAnswerError(f"answered-{code.lower()}-207")
    return Answer(accepted=False, code=code[:20])


async def measure(_: Runtime, tx: Transaction) -> None:
    counted = await order_store.count_pending(tx)
    WAITING.set(counted.pending)
    OLDEST_SECONDS.set((tx.now - counted.oldest_at).total_seconds() if counted.oldest_at else 0)
