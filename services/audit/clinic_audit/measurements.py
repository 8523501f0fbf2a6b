"""How far the signatures are behind the log, and what was refused entry to it: gauges for those who watch."""

from clinic_shared.database import Transaction
from clinic_shared.metrics import REGISTRY
from clinic_shared.service import Runtime
from prometheus_client import Gauge
from sqlalchemy import select

from clinic_audit import store
from clinic_audit.tables import checkpoint

SIGNED_AT = Gauge(
    "clinic_audit_checkpoint_timestamp_seconds", "When the newest checkpoint was signed", registry=REGISTRY
)
UNSIGNED = Gauge(
    "clinic_audit_unsigned_records", "Records that no signed checkpoint covers yet", registry=REGISTRY
)
INCIDENTS = Gauge(
    "clinic_audit_incidents", "Records that contradict the log and were kept apart", registry=REGISTRY
)


async def measure_log(_: Runtime, tx: Transaction) -> None:
    tree = await store.read_tree(tx)
    newest = await tx.fetch_one(
        select(checkpoint.c.tree_size, checkpoint.c.signed_at)
        .order_by(checkpoint.c.tree_size.desc())
        .limit(1)
    )
    UNSIGNED.set(tree.size - (newest.tree_size if newest else 0))
    if newest is not None:
        SIGNED_AT.set(newest.signed_at.timestamp())
    INCIDENTS.set(await store.count_incidents(tx))
