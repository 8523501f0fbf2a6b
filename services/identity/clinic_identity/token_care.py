"""What a client may ask about tokens that it holds: whether one still counts (RFC 7662), and to end it (RFC 7009).

A client hears of its own tokens only; any other is as unknown as one that was never issued.
"""

from typing import Any

from clinic_shared.auth import claims_in
from clinic_shared.database import Transaction
from clinic_shared.errors import UnauthenticatedError

from clinic_identity import session_store, sessions, store
from clinic_identity.desk import Desk
from clinic_identity.domain import Session
from clinic_identity.oauth_domain import Client
from clinic_identity.oauth_forms import Refused

REVOKED_BY_APP = "revoked-by-app"
_INACTIVE: dict[str, Any] = {"active": False}


async def introspect(tx: Transaction, desk: Desk, client: Client, token: str) -> dict[str, Any]:
    """Return the answer of RFC 7662, 2.2."""
    if token.startswith(sessions.REFRESH_TOKEN_PREFIX):
        return await _introspect_refresh_token(tx, desk, client, token)
    claims = await _claims_of(desk, client, token)
    if claims is None or not await _still_counts(tx, desk, client, claims):
        return _INACTIVE
    told = (
        "scope",
        "client_id",
        "sub",
        "exp",
        "iat",
        "nbf",
        "iss",
        "aud",
        "jti",
        "sid",
        "acr",
        "auth_time",
        "patient",
        "cnf",
    )
    return {"active": True, "token_type": "Bearer", **{name: claims[name] for name in told if name in claims}}


async def revoke(tx: Transaction, desk: Desk, client: Client, token: str) -> Refused | None:
    """End the session behind a token of the client's. What is unknown is as good as revoked (RFC 7009, 2.2)."""
    if token.startswith(sessions.REFRESH_TOKEN_PREFIX):
        digest = sessions.digest_of_refresh_token(token)
        session_id = await session_store.find_session_of_token(tx, digest)
    else:
        claims = await _claims_of(desk, client, token)
        if claims is not None and "sid" not in claims:
            return Refused(
                "unsupported_token_type", "A client's own token can't be revoked; it lives five minutes."
            )
        session_id = claims["sid"] if claims else None
    session = await session_store.lock_session(tx, session_id) if session_id else None
    account = await store.find_account(tx, session.account_id) if session else None
    if session is not None and account is not None and session.client_id == client.client_id:
        await sessions.end_session(tx, session, account.kind, REVOKED_BY_APP)
    return None


async def _introspect_refresh_token(
    tx: Transaction, desk: Desk, client: Client, token: str
) -> dict[str, Any]:
    session_id = await session_store.find_unused_token(tx, sessions.digest_of_refresh_token(token))
    session = await session_store.find_session(tx, session_id) if session_id else None
    if session is None or session.client_id != client.client_id or not await _is_live(tx, desk, session):
        return _INACTIVE
    return {
        "active": True,
        "token_type": "refresh_token",
        "scope": " ".join(sorted(session.granted_scopes or ())),
        "client_id": session.client_id,
        "sub": str(session.account_id),
        "exp": int(session.expires_at.timestamp()),
        "iss": desk.settings.token_issuer,
    }


async def _claims_of(desk: Desk, client: Client, token: str) -> dict[str, Any] | None:
    try:
        await desk.keys.verifier(desk.database.clock).verify(token)
    except UnauthenticatedError:
        return None
    claims = claims_in(token)
    return claims if claims.get("client_id") == client.client_id else None


async def _still_counts(tx: Transaction, desk: Desk, client: Client, claims: dict[str, Any]) -> bool:
    if "sid" not in claims:
        return bool(claims["iat"] >= int(client.tokens_valid_from.timestamp()))
    session = await session_store.find_session(tx, claims["sid"])
    return session is not None and await _is_live(tx, desk, session, issued_at=claims["iat"])


async def _is_live(tx: Transaction, desk: Desk, session: Session, *, issued_at: int | None = None) -> bool:
    account = await store.find_account(tx, session.account_id)
    if account is None or not account.active:
        return False
    if issued_at is not None and issued_at < int(account.tokens_valid_from.timestamp()):
        return False
    return session.is_live(tx.now, desk.session_limits(account, await sessions.roles_of(tx, account)))
