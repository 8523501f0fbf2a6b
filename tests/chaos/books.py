"""Reads what took effect: straight from the services' databases, the broker and the operators' ledger."""

import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, LiteralString

import httpx
import psycopg
from clinic_local.api_client import ApiError, Caller
from clinic_local.paths import run_dir
from clinic_local.testing import System
from clinic_shared import contracts
from clinic_shared.encryption.key_store import FILE, keys_in_clear
from clinic_shared.encryption.keyring import Keyring
from clinic_shared.intake_store import place_of
from clinic_shared.topology import UNROUTED

from . import messengers, outside, owing
from .accounting import AuditTrail, Finding, Published, Snapshot, Verdict, Violation, judge
from .history import History
from .owing import Rows
from .waiting import Watch

BOOKING, LAB_RESULT, OBSERVATION, PAYMENT = "booking", "lab result", "observation", "payment"
INBOUND, CORRECTION = "lab message", "correction"
SERIES = "series-"
"""Begins the filler numbers of results that are corrected again and again."""
MARK = "chaos-"
"""Begins the keys of what these tests do, where the demo network has left something of the same kind."""

LAB = "lab-integration"
Tell = Callable[[str], None]
_POLL_SECONDS = 0.2

_WAITING: LiteralString = """
    SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM audit_outbox),
           (SELECT count(*) FROM intake WHERE state <> 'processed')
"""
_NEXT_TRY: LiteralString = """
    SELECT extract(epoch FROM greatest(
        (SELECT max(next_attempt_at) FROM held WHERE state = 'held'),
        (SELECT max(next_attempt_at) FROM intake WHERE state = 'received'),
        (SELECT max(next_attempt_at) FROM outbox)
    ) - clock_timestamp())
"""
_OWED_OUTSIDE: dict[str, tuple[str, LiteralString]] = {
    "orders to send": (
        "lab-integration",
        "SELECT count(*) FROM order_transmission WHERE state = 'pending'",
    ),
    "refunds to make": (
        "billing",
        "SELECT count(*) FROM refund WHERE status IN ('pending', 'awaiting-approval')",
    ),
}
_TO_SEND: LiteralString = (
    "SELECT count(*) FROM message WHERE status = 'queued' AND send_at <= clock_timestamp()"
)
_RECORDED: LiteralString = """
    SELECT producer, count(*), count(DISTINCT pseq) FROM (
        SELECT producer, pseq FROM audit_record UNION ALL SELECT producer, pseq FROM archived_record
    ) AS recorded GROUP BY producer
"""
UTF8_MARK = b"\xef\xbb\xbf"
_ENVELOPES = {b"FHS", b"BHS", b"BTS", b"FTS"}
_NAMES = ("outbox", "audit outbox", "intake")
SETTLE_SECONDS = 120


class Books:
    """The state of one system against the history of what was asked of it."""

    def __init__(self, system: System, history: History, operator: Caller) -> None:
        self._system = system
        self._history = history
        self._operator = operator
        self._sound_up_to: int | None = None
        self._connections: dict[str, psycopg.Connection[tuple[Any, ...]]] = {}
        addresses = system.addresses
        self._urls = {
            service: url
            for service in contracts.load().services
            if (url := addresses.get(f"CLINIC_{service.upper().replace('-', '_')}_DATABASE_URL"))
        }
        self._management = addresses["CLINIC_PRIVATE_AMQP_MANAGEMENT_URL"]
        self._registrar = owing.Registrar(addresses["CLINIC_FAKES_URL"])
        self._messengers = messengers.Messengers(addresses["CLINIC_FAKES_URL"])
        self._laboratory = outside.Laboratory(addresses["CLINIC_FAKES_URL"])
        # A system that ran before these tests knows effects and messages of which their history doesn't.
        self._earlier: dict[str, dict[str, Counter[str]]] = {}
        earlier = self.read()
        self._earlier = earlier.effects
        for consumer, applied in earlier.applied.items():
            history.foreign |= applied.keys() | earlier.kept[consumer].keys()

    @property
    def services(self) -> tuple[str, ...]:
        return tuple(self._urls)

    def query(self, service: str, statement: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        """Ask one service's database."""
        try:
            if service not in self._connections:
                self._connections[service] = psycopg.connect(
                    self._urls[service], autocommit=True, connect_timeout=30
                )
            return self._connections[service].execute(statement, values or None).fetchall()
        except psycopg.OperationalError:
            self._forget(service)
            raise

    def _forget(self, service: str) -> None:
        connection = self._connections.pop(service, None)
        if connection is not None:
            connection.close()

    def close(self) -> None:
        for service in list(self._connections):
            self._forget(service)

    def settle(self, *, within_seconds: float = SETTLE_SECONDS, tell: Tell | None = None) -> Verdict:
        """Wait until everything has come to rest, and return the verdict; what is open by then is its finding."""
        verdict = self.until(lambda verdict: verdict.sound, within_seconds=within_seconds, tell=tell)
        self._sound_up_to = len(self._history) if verdict.sound else None
        return verdict

    @property
    def nothing_new(self) -> bool:
        """Whether nobody asked for anything since the last verdict, which was sound."""
        return self._sound_up_to == len(self._history)

    def until(
        self,
        expected: Callable[[Verdict], bool],
        *,
        within_seconds: float = SETTLE_SECONDS,
        tell: Tell | None = None,
    ) -> Verdict:
        """Wait until the verdict on a system without work under way is as expected; return the last one.

        The time begins anew whenever what is open has changed, and with what is to be tried again later.
        """
        watch = Watch(within_seconds, tell)
        while True:
            if watch.is_over and (later := self._next_try_seconds()) > 0:
                watch.extend(later)
            late = watch.is_over
            verdict, open_ = self._attempt(even_if_busy=late)
            if verdict is not None and (late or expected(verdict)):
                return verdict
            watch.note(open_)
            time.sleep(_POLL_SECONDS)

    def _attempt(self, *, even_if_busy: bool) -> tuple[Verdict | None, Sequence[str]]:
        """Return the verdict of now, or None while a cheap look tells that something is under way; and what."""
        try:
            under_way = [f"{name}: {count}" for name, count in self._waiting().items() if count]
            if under_way and not even_if_busy:
                return None, under_way
            snapshot = self.read()
            verdict = judge(snapshot, self._history)
            if verdict.sound:
                # Only now: reading the ledger leaves audit records, which would be found under way.
                snapshot.ledger = self._operator.get("/v1/ops/ledger")
                verdict = judge(snapshot, self._history)
        except (psycopg.OperationalError, httpx.HTTPError, ApiError) as error:
            verdict = Verdict((Finding(Violation.LEFT_OVER, "the system", (f"{error!r}",)),))
        return verdict, [str(finding) for finding in verdict.findings]

    def backlog(self) -> int:
        """Return how much is under way. Raises psycopg.Error, httpx.HTTPError."""
        return sum(self._waiting().values())

    def _next_try_seconds(self) -> float:
        """Return in how long the last of what failed is tried again by itself; 0 when nothing is to be."""
        try:
            return max(float(self.query(service, _NEXT_TRY)[0][0] or 0) for service in self._urls)
        except psycopg.OperationalError:
            return 0

    def read(self) -> Snapshot:
        snapshot = Snapshot(subscriptions=self._subscriptions())
        # Consumers before producers: what is published in between is not yet due, never invented.
        for service in self._urls:
            self._read_consumer(service, snapshot)
        snapshot.effects = {kind: self._new(kind, read(self.query)) for kind, read in self._effects().items()}
        snapshot.sequences = {"corrections in the chart": self._sequences()}
        for service in self._urls:
            self._read_producer(service, snapshot)
        snapshot.audit = self._audit_trails()
        self._read_what_is_owed(snapshot)
        self._read_messages(snapshot)
        snapshot.waiting = self._waiting()
        return snapshot

    def _waiting(self) -> dict[str, int]:
        waiting = {
            f"{name} of {service}": count
            for service in self._urls
            for name, count in zip(_NAMES, self.query(service, _WAITING)[0], strict=True)
        }
        if "notifications" in self._urls:
            waiting["messages to send"] = self.query("notifications", _TO_SEND)[0][0]
        return waiting | self._owed_outside() | self._queues()

    def _owed_outside(self) -> dict[str, int]:
        return {
            name: self.query(service, statement)[0][0]
            for name, (service, statement) in _OWED_OUTSIDE.items()
            if service in self._urls
        }

    def owed_outside(self) -> int:
        """Return how many orders and refunds still have to be told to somebody."""
        return sum(self._owed_outside().values())

    def _subscriptions(self) -> dict[str, tuple[str, ...]]:
        return {
            name: tuple(consumer for consumer in event.consumers if consumer in self._urls)
            for name, event in contracts.load().events.items()
        }

    def _read_consumer(self, service: str, snapshot: Snapshot) -> None:
        applied = self.query(service, "SELECT event_id, extract(epoch FROM processed_at) FROM inbox")
        snapshot.applied[service] = {event_id: float(at) for event_id, at in applied}
        snapshot.kept[service] = dict(self.query(service, "SELECT event_id, state FROM held"))

    def _read_producer(self, service: str, snapshot: Snapshot) -> None:
        broadcast = {event.type for event in contracts.load().events.values() if event.broadcast}
        log = self.query(
            service,
            "SELECT event_id, type, subject, aggregate_version, extract(epoch FROM recorded_at)::float8 FROM event "
            "WHERE carries IS NULL",  # state events are for those who begin anew
        )
        snapshot.published[service] = [Published(*row) for row in log if row[1] not in broadcast]

    def _read_what_is_owed(self, snapshot: Snapshot) -> None:
        if not {"billing", "lab-integration"} <= self._urls.keys():
            return
        # Registered first, owed second: what is booked in between is not yet registered, never unasked for.
        registered = self._registrar.registered()
        snapshot.receipts = list(owing.receipts(self.query, registered))
        owed = {receipt.movement for receipt in snapshot.receipts}
        snapshot.unasked_receipts = tuple(registered.keys() - owed)
        snapshot.obligations = list(owing.obligations(self.query))

    def _read_messages(self, snapshot: Snapshot) -> None:
        if "notifications" not in self._urls:
            return
        received = self._messengers.received()
        snapshot.told = messengers.told(self.query, received)
        snapshot.unasked_messages = tuple(received.keys() - {one.message_id for one in snapshot.told})

    def keep_what_vendors_know(self) -> None:
        """Remember what the vendors' stand-ins were told: they are about to be started anew."""
        self._registrar.remember()
        self._messengers.remember()
        self._laboratory.remember()

    def _audit_trails(self) -> dict[str, AuditTrail]:
        by_producer = {producer: counts for producer, *counts in self.query("audit", _RECORDED)}
        trails = {}
        for service in self._urls:
            numbered = self.query(service, "SELECT next_pseq FROM audit_producer")[0][0]
            count, distinct = by_producer.get(service, (0, 0))
            trails[service] = AuditTrail(numbered=numbered, stored=count, distinct=distinct)
        return trails

    def _effects(self) -> dict[str, Callable[[Rows], dict[str, Counter[str]]]]:
        kinds: dict[str, Callable[[Rows], dict[str, Counter[str]]]] = {BOOKING: self._bookings}
        if "lab-integration" in self._urls:
            kinds |= {
                INBOUND: self._inbound,
                LAB_RESULT: _lab_results,
                CORRECTION: _corrections,
                OBSERVATION: _observations,
                outside.ORDER: lambda rows: outside.orders(rows, self._laboratory.taken(), mark=MARK),
                outside.MENDED: partial(outside.mended, history=self._history),
            }
        return kinds | {PAYMENT: _payments, outside.REFUND: outside.refunds}

    def _new(self, kind: str, places: dict[str, Counter[str]]) -> dict[str, Counter[str]]:
        earlier = self._earlier.get(kind, {})
        return {place: found - earlier.get(place, Counter()) for place, found in places.items()}

    def keyring(self, service: str) -> Keyring:
        """Return what opens what a service has encrypted at rest."""
        return Keyring(keys_in_clear(run_dir(self._system.root) / "secrets" / service / FILE))

    def _inbound(self, rows: Rows) -> dict[str, Counter[str]]:
        """A laboratory's message is known by its bytes, which are encrypted at rest."""
        keys = self.keyring(LAB)
        kept = rows(LAB, "SELECT id, data_key, body FROM intake WHERE interface LIKE 'hl7%'")
        opened = (keys.open_row(place_of(LAB, id_), key, {"body": body})["body"] for id_, key, body in kept)
        return {"kept": Counter(one for body in opened for one in fingerprints(body or b""))}

    def _bookings(self, rows: Rows) -> dict[str, Counter[str]]:
        made = rows("scheduling", "SELECT appointment_id, reason FROM appointment")
        key_of = {appointment: key for appointment, key in made if key and key.startswith(MARK)}
        places = {"calendar": Counter(key_of.values())}
        elsewhere: dict[str, tuple[str, LiteralString]] = {
            "timeline": ("patients", "SELECT source_id FROM timeline_entry WHERE kind = 'appointment'"),
            "confirmation": (
                "notifications",
                # Its first step: by which other channel it went when the first failed is no second confirmation.
                """SELECT about_id FROM message WHERE purpose = 'appointment-confirmation'
                   AND about_type = 'appointment' AND step = 0""",
            ),
            "reports": ("reporting", "SELECT appointment_id FROM appointment_fact"),
        }
        for place, (service, statement) in elsewhere.items():
            if service in self._urls:
                ids = (row[0] for row in rows(service, statement))
                places[place] = Counter(key_of[one] for one in ids if one in key_of)
        return places

    def _sequences(self) -> dict[str, list[int]]:
        told: dict[str, list[int]] = {}
        for correction in _corrections(self.query)["chart"].elements():
            filler, _, number = correction.rpartition("#")
            told.setdefault(filler, []).append(int(number))
        return told

    def _queues(self) -> dict[str, int]:
        answer = httpx.get(
            f"{self._management}/api/queues", params={"columns": "name,messages"}, trust_env=False, timeout=30
        )
        found = answer.raise_for_status().json()
        # What went nowhere while a queue was missing is copied there for people to look at: nobody works it off.
        return {
            f"queue {queue['name']}": queue.get("messages", 0) for queue in found if queue["name"] != UNROUTED
        }


def fingerprints(payload: bytes) -> list[str]:
    """Return what each message of a payload is known by, however its lines end and whatever wraps them."""
    lines = (line.strip() for line in re.split(rb"[\r\n]+", payload.removeprefix(UTF8_MARK)))
    messages: list[list[bytes]] = []
    for line in lines:
        if line.startswith(b"MSH"):
            messages.append([])
        if messages and line and line[:3] not in _ENVELOPES:
            messages[-1].append(line)
    return [hashlib.sha256(b"\r".join(message)).hexdigest()[:20] for message in messages]


def _corrections(rows: Rows) -> dict[str, Counter[str]]:
    statement: LiteralString = (
        "SELECT filler_order_number || '#' || value FROM observation "
        "JOIN result_version USING (result_id, version) WHERE filler_order_number LIKE 'series-%' "
        "ORDER BY filler_order_number, version"
    )
    return {"chart": _counted(rows("patients", statement))}


def _lab_results(rows: Rows) -> dict[str, Counter[str]]:
    """A result is known by the laboratory's own number of it."""
    statement: LiteralString = "SELECT filler_order_number FROM {} WHERE filler_order_number LIKE 'chaos-%'"
    return {
        "chart": _counted(rows("patients", statement.format("result_version"))),
        "laboratory": _counted(rows("lab-integration", statement.format("lab_result_version"))),
        "timeline": _counted(
            rows(
                "patients",
                "SELECT filler_order_number FROM timeline_entry JOIN result_version v "
                "ON v.result_id = source_id AND v.version = timeline_entry.version "
                "WHERE kind = 'lab-result' AND filler_order_number LIKE 'chaos-%'",
            )
        ),
        "answered": _counted(
            rows(
                "lab-integration",
                "SELECT filler_order_number FROM lab_result_version "
                "WHERE filed_at IS NOT NULL AND filler_order_number LIKE 'chaos-%'",
            )
        ),
    }


def _observations(rows: Rows) -> dict[str, Counter[str]]:
    statement: LiteralString = (
        "SELECT filler_order_number || '/' || observation.code FROM observation "
        "JOIN result_version USING (result_id, version) WHERE filler_order_number LIKE 'chaos-%'"
    )
    return {"chart": _counted(rows("patients", statement))}


def _payments(rows: Rows) -> dict[str, Counter[str]]:
    return {
        "ledger": _counted(
            rows("billing", "SELECT source_id::text FROM ledger_movement WHERE kind = 'payment-received'")
        ),
        "timeline": _counted(
            rows("patients", "SELECT source_id::text FROM timeline_entry WHERE kind = 'payment'")
        ),
    }


def _counted(found: Iterable[tuple[Any, ...]]) -> Counter[str]:
    return Counter(row[0] for row in found)
