"""How long results take from the laboratory's message to the chart."""

from clinic_shared.database import Transaction
from clinic_shared.metrics import REGISTRY
from clinic_shared.service import Runtime
from prometheus_client import Gauge, Histogram
from sqlalchemy import func, select

from clinic_lab_integration.domain import Disposition
from clinic_lab_integration.tables import lab_unit

FILING_SECONDS = Histogram(
    "clinic_lab_filing_seconds",
    "From a laboratory's message to all of a patient's results of it in the chart",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86400),
    registry=REGISTRY,
)
IN_FLIGHT = Gauge(
    "clinic_lab_groups_in_flight", "Patient groups that the chart hasn't filed yet", registry=REGISTRY
)
OLDEST_SECONDS = Gauge(
    "clinic_lab_oldest_in_flight_seconds",
    "Age of the oldest group that the chart hasn't filed",
    registry=REGISTRY,
)


async def measure_filing(_: Runtime, tx: Transaction) -> None:
    row = await tx.fetch_one(
        select(func.count().label("groups"), func.min(lab_unit.c.received_at).label("oldest_at")).where(
            lab_unit.c.disposition == Disposition.IN_FLIGHT.value
        )
    )
    assert row is not None  # noqa: S101  # an aggregate has a row
    IN_FLIGHT.set(row.groups)
    OLDEST_SECONDS.set((tx.now - row.oldest_at).total_seconds() if row.oldest_at else 0)
