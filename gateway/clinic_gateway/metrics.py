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
