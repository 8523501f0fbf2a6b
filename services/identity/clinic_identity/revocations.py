"""What the gateway asks for besides listening: every revocation that still matters, whole, from the event log.

A whole list needs no sequence and has no gaps: tokens live five minutes, so it stays short. It goes to whoever
reaches this port, which is the gateway alone, and holds ids only.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from clinic_shared.auth import LEEWAY_SECONDS, LIFETIME_SECONDS
from clinic_shared.database import Transaction
from clinic_shared.events import event_log
from clinic_shared.ids import uuid7_floor
from clinic_shared.routing import PUBLIC, ClinicRouter, Tx
from pydantic import AwareDatetime, BaseModel
from sqlalchemy import select

router = ClinicRouter(tags=["identity"])

_EVENT = "identity.session-revoked.v1"
_LOOKED_BACK = timedelta(seconds=LIFETIME_SECONDS + 2 * LEEWAY_SECONDS + 60)


class RevocationsResponse(BaseModel):
    revocations: list[dict[str, Any]]


@router.get("/internal/revocations", permission=PUBLIC, include_in_schema=False)
async def list_revocations(tx: Tx) -> RevocationsResponse:
    """Return the `data` of every SessionRevoked whose tokens haven't all expired."""
    return RevocationsResponse(revocations=await _in_force(tx))


async def _in_force(tx: Transaction) -> list[dict[str, Any]]:
    # Ids carry the real time of their making, and order the log: the primary key finds the last minutes.
    since = uuid7_floor(datetime.now(UTC) - _LOOKED_BACK)
    statement = select(event_log.c.data).where(event_log.c.event_id >= since, event_log.c.type == _EVENT)
    rows = await tx.fetch_all(statement.order_by(event_log.c.event_id))
    return [row.data for row in rows if _expiry(row.data) > tx.now]


def _expiry(data: dict[str, Any]) -> AwareDatetime:
    return datetime.fromisoformat(data["expires_at"])
