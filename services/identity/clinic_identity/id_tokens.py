"""ID tokens (OpenID Connect Core 2): who logged in, for the app that asked; they open nothing here."""

import base64
import hashlib

from clinic_shared import strict_json
from clinic_shared.auth import ALGORITHM, LIFETIME_SECONDS
from clinic_shared.database import Transaction
from joserfc import jws

from clinic_identity.desk import Desk
from clinic_identity.domain import Account, AccountKind, Session
from clinic_identity.oauth_domain import FHIR_USER


def id_token_of(
    tx: Transaction, desk: Desk, account: Account, session: Session, *, nonce: str | None, access_token: str
) -> str:
    """Return ids and how their owner logged in, nothing personal."""
    issued = int(tx.now.timestamp())
    claims = {
        "iss": desk.settings.token_issuer,
        "sub": str(account.account_id),
        "aud": session.client_id,
        "iat": issued,
        "exp": issued + LIFETIME_SECONDS,
        "auth_time": int((session.authenticated_at or session.started_at).timestamp()),
        "acr": session.acr,
        "amr": list(session.amr),
        "sid": str(session.session_id),
        "at_hash": _half_digest(access_token),
    }
    if nonce is not None:
        claims["nonce"] = nonce
    if resource := fhir_user(desk, account, session):
        claims["fhirUser"] = resource
    signer = desk.keys.signer
    # Another `typ` than an access token's: no service takes it for one.
    header = {"alg": ALGORITHM, "typ": "JWT", "kid": signer.key_id}
    return jws.serialize_compact(header, strict_json.dumps(claims), signer.key, algorithms=[ALGORITHM])


def fhir_user(desk: Desk, account: Account, session: Session) -> str | None:
    """Return the FHIR resource of whoever logged in, if the app may know it."""
    if FHIR_USER not in (session.granted_scopes or ()):
        return None
    return desk.settings.fhir_base + _fhir_reference(account)


def _fhir_reference(account: Account) -> str:
    if account.kind is AccountKind.PATIENT:
        return f"/Patient/{account.patient_id}"
    return f"/Practitioner/{account.account_id}"


def _half_digest(token: str) -> str:
    half = hashlib.sha256(token.encode()).digest()[:16]
    return base64.urlsafe_b64encode(half).rstrip(b"=").decode()
