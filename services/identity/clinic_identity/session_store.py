"""Queries on sessions, their refresh tokens, and failed attempts to log in."""

from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from clinic_shared.database import Transaction
from sqlalchemy import Row, case, delete, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_identity.domain import Session
from clinic_identity.tables import attempt_counter, authorization_code, refresh_token, session


async def add_session(tx: Transaction, new: Session) -> None:
    await tx.execute(insert(session).values(_session_values(new)))


async def save_session(tx: Transaction, changed: Session) -> None:
    await tx.execute(
        update(session).where(session.c.session_id == changed.session_id).values(_session_values(changed))
    )


async def lock_session(tx: Transaction, session_id: UUID) -> Session | None:
    row = await tx.fetch_one(select(session).where(session.c.session_id == session_id).with_for_update())
    return None if row is None else _session(row)


async def find_session(tx: Transaction, session_id: UUID) -> Session | None:
    row = await tx.fetch_one(select(session).where(session.c.session_id == session_id))
    return None if row is None else _session(row)


async def list_sessions(tx: Transaction, account_id: UUID) -> list[Session]:
    """Return an account's sessions that haven't ended or expired, oldest first."""
    statement = _live(tx, account_id).order_by(session.c.session_id)
    return [_session(row) for row in await tx.fetch_all(statement)]


async def lock_sessions(tx: Transaction, account_id: UUID) -> list[Session]:
    statement = _live(tx, account_id).order_by(session.c.session_id).with_for_update()
    return [_session(row) for row in await tx.fetch_all(statement)]


async def lock_sessions_of_app(tx: Transaction, client_id: str) -> list[Session]:
    """Return an app's sessions of whomever, in the order in which all lock them."""
    # By way of the codes, which live as long as their sessions: no index slows down every refresh.
    lent = select(authorization_code.c.session_id).where(authorization_code.c.client_id == client_id)
    live = select(session).where(
        session.c.session_id.in_(lent), session.c.ended_at.is_(None), session.c.expires_at > tx.now
    )
    rows = await tx.fetch_all(live.order_by(session.c.session_id).with_for_update())
    return [_session(row) for row in rows]


def _session(row: Row[Any]) -> Session:
    granted = None if row.granted_scopes is None else tuple(row.granted_scopes)
    lists = {"amr": tuple(row.amr), "granted_scopes": granted}
    return Session(**dict(row._mapping) | lists)  # noqa: SLF001


def _session_values(value: Session) -> dict[str, Any]:
    granted = None if value.granted_scopes is None else list(value.granted_scopes)
    return asdict(value) | {"amr": list(value.amr), "granted_scopes": granted}


def _live(tx: Transaction, account_id: UUID) -> Any:
    return select(session).where(
        session.c.account_id == account_id, session.c.ended_at.is_(None), session.c.expires_at > tx.now
    )


async def count_unlock(tx: Transaction, session_id: UUID) -> int:
    """Count a try to unlock, before it is checked."""
    counted = (
        update(session)
        .where(session.c.session_id == session_id)
        .values(unlock_failures=session.c.unlock_failures + 1)
        .returning(session.c.unlock_failures)
    )
    return int((await tx.execute(counted)).scalar_one())


# -- refresh tokens


async def add_refresh_token(tx: Transaction, digest: bytes, session_id: UUID) -> None:
    await tx.execute(insert(refresh_token).values(digest=digest, session_id=session_id, issued_at=tx.now))


async def withdraw_refresh_token(tx: Transaction, session_id: UUID) -> None:
    """Forget the token that a session's owner never got."""
    await tx.execute(
        delete(refresh_token).where(
            refresh_token.c.session_id == session_id, refresh_token.c.used_at.is_(None)
        )
    )


async def find_session_of_token(tx: Transaction, digest: bytes) -> UUID | None:
    row = await tx.fetch_one(select(refresh_token.c.session_id).where(refresh_token.c.digest == digest))
    return None if row is None else row.session_id


async def find_unused_token(tx: Transaction, digest: bytes) -> UUID | None:
    statement = select(refresh_token.c.session_id).where(
        refresh_token.c.digest == digest, refresh_token.c.used_at.is_(None)
    )
    row = await tx.fetch_one(statement)
    return None if row is None else row.session_id


async def use_refresh_token(tx: Transaction, digest: bytes) -> bool:
    """Use a token up; False when it was used before. The session's lock is held."""
    result = await tx.execute(
        update(refresh_token)
        .where(refresh_token.c.digest == digest, refresh_token.c.used_at.is_(None))
        .values(used_at=tx.now)
    )
    return result.rowcount == 1


# -- failed attempts


async def lock_failures(tx: Transaction, kind: str, subject: bytes) -> Row[Any]:
    """Return the row of who fails, made if it wasn't there, and hold it until the commit."""
    made = upsert(attempt_counter).values(
        kind=kind, subject=subject, failures=0, counted_from=tx.now, last_failure_at=tx.now
    )
    # An update that changes nothing: unlike DO NOTHING it locks and returns the row that is there.
    statement = made.on_conflict_do_update(
        index_elements=[attempt_counter.c.kind, attempt_counter.c.subject], set_={"kind": made.excluded.kind}
    )
    return (await tx.execute(statement.returning(attempt_counter))).one()


async def save_failures(
    tx: Transaction,
    kind: str,
    subject: bytes,
    *,
    failures: int,
    counted_from: datetime,
    blocked_until: datetime | None,
) -> None:
    await tx.execute(
        update(attempt_counter)
        .where(attempt_counter.c.kind == kind, attempt_counter.c.subject == subject)
        .values(
            failures=failures,
            counted_from=counted_from,
            last_failure_at=tx.now,
            blocked_until=blocked_until,
        )
    )


async def forget_failures(tx: Transaction, kind: str, subject: bytes) -> None:
    await tx.execute(
        delete(attempt_counter).where(attempt_counter.c.kind == kind, attempt_counter.c.subject == subject)
    )


# -- housekeeping


async def purge(
    tx: Transaction, *, sessions_before: datetime, failures_before: datetime, strangers_before: datetime
) -> None:
    """Remove sessions that expired, with their tokens, and attempts that no longer count."""
    await tx.execute(delete(session).where(session.c.expires_at < sessions_before))
    outlived = case(
        (attempt_counter.c.kind == "strangers", attempt_counter.c.last_failure_at < strangers_before),
        else_=attempt_counter.c.last_failure_at < failures_before,
    )
    await tx.execute(delete(attempt_counter).where(outlived))
