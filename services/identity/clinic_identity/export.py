"""What identity holds about a patient: their login, its sessions and kinds of second factors. No secrets."""

from collections.abc import Sequence
from uuid import UUID

from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.exporting import Part, contribute, told
from sqlalchemy import select

from clinic_identity.tables import account, known_device, second_factor, session

handlers = Handlers("identity")

_ACCOUNT = (account.c.account_id, account.c.login, account.c.active, account.c.created_at)
_SESSION = (
    session.c.session_id,
    session.c.started_at,
    session.c.last_used_at,
    session.c.ended_at,
    session.c.end_reason_code,
    session.c.address,
    session.c.agent,
    session.c.client_id,
)
_DEVICE = (known_device.c.device_id, known_device.c.first_seen_at, known_device.c.last_seen_at)


async def gather(tx: Transaction, patient_ids: Sequence[UUID]) -> Part:
    accounts = await tx.fetch_all(select(*_ACCOUNT).where(account.c.patient_id.in_(patient_ids)))
    ids = [row.account_id for row in accounts]
    sessions = await tx.fetch_all(
        select(*_SESSION).where(session.c.account_id.in_(ids)).order_by(session.c.started_at)
    )
    devices = await tx.fetch_all(
        select(*_DEVICE).where(known_device.c.account_id.in_(ids)).order_by(known_device.c.first_seen_at)
    )
    factors = await tx.fetch_all(
        select(second_factor.c.kind, second_factor.c.created_at)
        .where(second_factor.c.account_id.in_(ids))
        .order_by(second_factor.c.created_at)
    )
    found = {"logins": accounts, "sessions": sessions, "devices": devices, "second-factors": factors}
    return Part(others={name: [told(row) for row in rows] for name, rows in found.items()})


contribute(handlers, "identity.export-part-ready.v1", gather)
