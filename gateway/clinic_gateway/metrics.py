"""What the gateway counts about its upstreams; labels are services' names and closed sets."""

from clinic_shared.metrics import REGISTRY
from prometheus_client import Counter, Gauge

CIRCUIT_STATE = Gauge(
    "clinic_gateway_circuit_state",
    "0: requests pass, 1: one at a time is tried, 2: requests are refused",
    ("upstream",),
    registry=REGISTRY,
)
CIRCUIT_OPENED = Counter(
    "clinic_gateway_circuit_opened_total", "Times that a circuit opened", ("upstream",), registry=REGISTRY
)
RETRIES = Counter(
    "clinic_gateway_retries_total",
    "Requests sent again, by cause: failure, reference; and those that the budget forbade",
    ("upstream", "cause", "outcome"),
    registry=REGISTRY,
)
SHED = Counter(
    "clinic_gateway_shed_total",
    "Requests refused because the service has too much to do, by lane: intake, other",
    ("upstream", "lane"),
    registry=REGISTRY,
)
CONCURRENCY_LIMIT = Gauge(
    "clinic_gateway_concurrency_limit",
    "Requests that a service is given at once",
    ("upstream",),
    registry=REGISTRY,
)
IN_FLIGHT = Gauge(
    "clinic_gateway_in_flight", "Requests that a service is working on", ("upstream",), registry=REGISTRY
)
STREAMS = Gauge("clinic_gateway_streams", "Open streams of live updates", registry=REGISTRY)
STREAM_RESETS = Counter(
    "clinic_gateway_stream_resets_total",
    "Streams told to read everything anew: after a gap, too old, too slow",
    ("reason",),
    registry=REGISTRY,
)
RATE_LIMITED = Counter(
    "clinic_gateway_rate_limited_total", "Requests refused by a rate limit", ("limit",), registry=REGISTRY
)
