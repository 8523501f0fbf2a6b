"""The metrics of a process. A label's values come from a closed set (event types, queues, states), never from data.

Whose process it is, Prometheus adds as `service` and `role` when it scrapes. What is read from the
database is the same in every replica of a service: rules take the maximum, not the sum.
"""

import threading
from collections.abc import Iterable, Sequence

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

REGISTRY = CollectorRegistry(auto_describe=True)
"""One per process."""

ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

_LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_DELAY_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
"""For what may wait out an outage: from the idle case to hours."""


class StoredCounter(Collector):
    """A counter that lives in the database, so that it survives restarts; set as a whole when it was read."""

    def __init__(self, name: str, meaning: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name, self._meaning, self._labels = name, meaning, labels
        self._values: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()
        registry.register(self)

    def put(self, values: dict[tuple[str, ...], float]) -> None:
        """Replace what was read; keys are label values in the order of the labels."""
        with self._lock:
            self._values = dict(values)

    def _family(self) -> CounterMetricFamily:
        return CounterMetricFamily(self._name, self._meaning, labels=self._labels)

    def describe(self) -> Iterable[CounterMetricFamily]:
        yield self._family()

    def collect(self) -> Iterable[CounterMetricFamily]:
        family = self._family()
        with self._lock:
            for labels, value in self._values.items():
                family.add_metric(labels, value)
        yield family


def _counter(name: str, meaning: str, *labels: str) -> Counter:
    return Counter(name, meaning, labels, registry=REGISTRY)


def _gauge(name: str, meaning: str, *labels: str) -> Gauge:
    return Gauge(name, meaning, labels, registry=REGISTRY)


def _latency(name: str, meaning: str, *labels: str) -> Histogram:
    return Histogram(name, meaning, labels, buckets=_LATENCY_BUCKETS, registry=REGISTRY)


def _delay(name: str, meaning: str, *labels: str) -> Histogram:
    return Histogram(name, meaning, labels, buckets=_DELAY_BUCKETS, registry=REGISTRY)


# Requests
HTTP_REQUESTS = _counter(
    "clinic_http_requests_total", "HTTP requests answered", "service", "route", "method", "status"
)
HTTP_REQUEST_SECONDS = _latency(
    "clinic_http_request_seconds", "From a request's arrival to its answer", "service", "route", "method"
)
REFUSALS = _counter(
    "clinic_refusals_total",
    "Requests answered with a problem, by its slug",
    "service",
    "route",
    "method",
    "reason",
)
UNEXPECTED_ERRORS = _counter("clinic_unexpected_errors_total", "Errors that nobody mapped", "error_class")
TOKEN_REFUSALS = _counter("clinic_token_refusals_total", "Access tokens refused", "reason")
JWKS_FETCHES = _counter("clinic_jwks_fetches_total", "Attempts to read the issuer's public keys", "outcome")
PERMISSION_DENIALS = _counter("clinic_permission_denials_total", "Requests refused by policy", "route")
IDEMPOTENT_REPLAYS = _counter("clinic_idempotent_replays_total", "Answers given again for a key", "route")

# Events out
OUTBOX_PENDING = _gauge(
    "clinic_outbox_pending", "Events waiting for the broker's confirm; counted up to 100,000"
)
OUTBOX_BLOCKED = _gauge("clinic_outbox_blocked", "Waiting events that the broker has refused at least once")
OUTBOX_OLDEST_SECONDS = _gauge("clinic_outbox_oldest_seconds", "Age of the oldest waiting event")
AUDIT_OUTBOX_PENDING = _gauge(
    "clinic_audit_outbox_pending", "Audit records waiting for the broker's confirm; counted up to 100,000"
)
RELAY_OUTCOMES = _counter(
    "clinic_relay_outcomes_total", "Publishes: confirmed, returned, nacked, unknown, permanent", "outcome"
)
RELAY_SECONDS = _delay("clinic_relay_seconds", "From an event's record to the broker's confirm")

# Events in
INBOX_DUPLICATES = _counter("clinic_inbox_duplicates_total", "Messages that had taken effect before")
HELD_MESSAGES = _gauge("clinic_held_messages", "Messages waiting for their next attempt", "type")
PARKED_MESSAGES = _gauge("clinic_parked_messages", "Messages waiting for a person", "type")
REDRIVEN_MESSAGES = _counter(
    "clinic_redriven_messages_total", "Messages of redrive runs by what became of them", "outcome"
)
HANDLER_SECONDS = _latency(
    "clinic_handler_seconds", "Time a message took to take effect, with commit", "type"
)
DELIVERY_SECONDS = _delay(
    "clinic_delivery_seconds",
    "From an event's record at its producer to its effect's commit here",
    "producer",
)
SUBSCRIPTION_LAG_EVENTS = _gauge(
    "clinic_subscription_lag_events",
    "Messages in a subscription's queue, as the broker's management API counts them",
    "consumer",
    "producer",
)
SUBSCRIPTION_LAG_SECONDS = _gauge(
    "clinic_subscription_lag_seconds",
    "Age of the oldest event that hasn't taken effect and isn't held or parked",
    "consumer",
    "producer",
)

# The accounting of events, from the database
EVENTS_PUBLISHED = StoredCounter(
    "clinic_events_published", "Events that the broker has confirmed", ("producer", "type"), REGISTRY
)
EVENTS_APPLIED = StoredCounter(
    "clinic_events_applied", "Events that took effect", ("consumer", "producer", "type"), REGISTRY
)
ACCOUNTED_PUBLISHED = _gauge(
    "clinic_accounted_published_events",
    "Events of the last settled day that were published",
    "producer",
    "type",
)
ACCOUNTED_APPLIED = _gauge(
    "clinic_accounted_applied_events",
    "Events of the last settled day that took effect",
    "consumer",
    "producer",
    "type",
)
ACCOUNTED_KEPT = _gauge(
    "clinic_accounted_kept_events",
    "Events of the last settled day that are held, parked or discarded",
    "consumer",
    "producer",
    "type",
)

# Buffers and timers
INTAKE_TOTAL = _counter(
    "clinic_intake_total", "Messages accepted from outside, by where they became durable", "interface", "via"
)
INTAKE_ITEMS = _gauge("clinic_intake_items", "Messages from outside that wait: received, parked", "state")
INTAKE_OLDEST_SECONDS = _gauge(
    "clinic_intake_oldest_seconds", "Age of the oldest message from outside that isn't processed"
)
TIMERS_OVERDUE = _gauge("clinic_timers_overdue", "Durable timers more than a minute past their due time")
TIMERS_OLDEST_SECONDS = _gauge("clinic_timers_oldest_seconds", "How long the most overdue timer is due")
TIMERS_TOTAL = _counter("clinic_timers_total", "Durable timers by what became of them", "kind", "outcome")

# The ledger
LEDGER_MESSAGES = _gauge(
    "clinic_ledger_messages",
    "Answered messages of an interface by disposition, and how many were answered",
    "interface",
    "disposition",
)
LEDGER_BALANCED = _gauge(
    "clinic_ledger_balanced",
    "1 when the dispositions of an interface add up to what was answered",
    "interface",
)
LEDGER_RECENT_IMBALANCE = _gauge(
    "clinic_ledger_recent_imbalance",
    "Messages received yesterday and today that have no disposition (or, below zero, more than one)",
    "interface",
    "partner",
)
MONEY_IMBALANCE = _gauge(
    "clinic_money_ledger_imbalance_minor", "By how much money movements fail to sum to zero, in minor units"
)

# The process
POOL_SIZE = _gauge("clinic_pool_size", "Connections to the database that this process may open")
POOL_IN_USE = _gauge("clinic_pool_in_use", "Connections to the database that are in use")
POOL_WAITING = _gauge("clinic_pool_waiting", "Transactions waiting for a connection")
POOL_WAIT_SECONDS = _latency("clinic_pool_wait_seconds", "How long a transaction waited for its connection")
EVENT_LOOP_LAG_SECONDS = _latency(
    "clinic_event_loop_lag_seconds", "How much later than asked the event loop woke a sleeper"
)
DEPRECATED_CALLS = _counter(
    "clinic_deprecated_calls_total", "Calls of operations that are on their way out", "route"
)
SECRET_RELOADS = _counter("clinic_secret_reloads_total", "Changed secrets: taken or refused", "outcome")
SEALS_BROKEN = _counter(
    "clinic_seals_broken_total",
    "Encrypted values that didn't open: altered, or moved to another row",
    "table",
)
REPLAYED_EVENTS = _counter(
    "clinic_replayed_events_total", "Events of the log that were sent again", "purpose"
)
REBUILD_EVENTS = _counter(
    "clinic_rebuild_events_total", "Replayed events that reached the shadow copy", "outcome"
)
DEFAULT_PARTITION_ROWS = _gauge(
    "clinic_default_partition_rows", "Rows that no month's partition was there for", "table"
)
LOOP_FAILURES = _counter("clinic_loop_failures_total", "Errors that an endless loop survived", "loop")
LOOPS_TROUBLED = _gauge(
    "clinic_loops_troubled", "Loops that can't do their work right now, and say so at /readyz"
)
MEASURED_AT = _gauge(
    "clinic_measured_timestamp_seconds", "When a measurement of the database succeeded last", "measurement"
)
LOG_DROPPED_KEYS = _counter("clinic_log_dropped_keys_total", "Log fields that aren't on the allow-list")


def exposition() -> tuple[bytes, str]:
    """Return the metrics in Prometheus' text format, with its media type."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
