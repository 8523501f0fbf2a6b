"""OAuth2 clients: laboratories and apps. Secrets are made here, shown once, and kept as digests."""

import hashlib
import secrets
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry, Outcome
from clinic_shared.database import Transaction
from clinic_shared.errors import ForbiddenError, NotFoundError
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.problems import constraint_of
from clinic_shared.timers import Timer, Timers
from sqlalchemy.exc import IntegrityError

from clinic_identity import sessions, store
from clinic_identity.certificate_rules import CertificateRule
from clinic_identity.client_assertions import check_keys
from clinic_identity.domain import (
    DeactivatedError,
    UnknownReferenceError,
    next_whole_second,
    unknown_among,
)
from clinic_identity.events import lab_event, tokens_revoked
from clinic_identity.oauth_domain import (
    NEVER_LENT,
    CertificateNotForPeopleError,
    Client,
    ClientIdTakenError,
    ClientKind,
    PublicClientError,
    check_redirect_uri,
)
from clinic_identity.smart_scopes import SMART_SCOPES

LAB_ROLE = "lab"
RETIRE_SECRET = "client-secret.retire"  # noqa: S105  # a timer's kind

timers = Timers()


@dataclass(frozen=True, kw_only=True)
class RegisterClient:
    """An app's scopes and places are given; a lab's come from its role."""

    kind: ClientKind
    name: str
    client_id: str | None
    scopes: tuple[str, ...]
    network: bool
    centre_ids: tuple[UUID, ...]
    redirect_uris: tuple[str, ...] = ()
    user_scopes: tuple[str, ...] = ()
    public: bool = False


@dataclass(frozen=True, kw_only=True)
class Registration:
    """A client and the secret that is shown this once; a public one has none."""

    client: Client
    client_secret: str | None


async def register_client(
    tx: Transaction, command: RegisterClient, *, known_scopes: frozenset[str], caller: Principal
) -> Registration:
    await _check_reach(tx, command, known_scopes, caller)
    secret = None if command.public else secrets.token_urlsafe(32)
    client = Client(
        id=uuid7(),
        version=1,
        kind=command.kind,
        client_id=command.client_id or f"{command.kind.value}-{secrets.token_hex(6)}",
        name=command.name,
        scopes=command.scopes,
        network=command.network,
        centre_ids=command.centre_ids,
        secret_digest=digest_of(secret) if secret else "",
        previous_secret_digest=None,
        previous_secret_expires_at=None,
        active=True,
        registered_at=tx.now,
        changed_at=None,
        tokens_valid_from=tx.now,
        redirect_uris=command.redirect_uris,
        user_scopes=command.user_scopes,
    )
    try:
        await store.add_client(tx, client)
    except IntegrityError as error:
        if constraint_of(error) == store.CLIENT_ID_ONCE:
            raise ClientIdTakenError from error
        raise
    _record(tx, "lab-registered", client, Action.CREATE)
    return Registration(client=client, client_secret=secret)


async def rotate_secret(
    tx: Transaction, client_key: UUID, *, overlap: timedelta, expected_version: int | None
) -> Registration:
    """Give a new secret. The one before works until the overlap is over; an older one stops now."""
    old = await _lock(tx, client_key, expected_version)
    if old.is_public:
        raise PublicClientError
    secret = secrets.token_urlsafe(32)
    rotated = replace(
        old,
        version=old.version + 1,
        secret_digest=digest_of(secret),
        previous_secret_digest=old.secret_digest if overlap else None,
        previous_secret_expires_at=tx.now + overlap if overlap else None,
        changed_at=tx.now,
    )
    await store.save_client(tx, rotated)
    if overlap:
        await tx.schedule(
            Timer(
                kind=RETIRE_SECRET,
                subject=rotated.id,
                subject_version=rotated.version,
                due_at=tx.now + overlap,
            )
        )
    _record(tx, "lab-changed", rotated, Action.UPDATE, reason="secret-rotated")
    return Registration(client=rotated, client_secret=secret)


@timers.on(RETIRE_SECRET)
async def retire_secret(tx: Transaction, timer: Timer) -> None:
    """Forget the replaced secret, and tell those who check it themselves."""
    client = await store.lock_client(tx, timer.subject)
    if client is None or client.previous_secret_expires_at is None:
        return
    if client.previous_secret_expires_at > tx.now:
        return  # it was replaced once more, and that has a timer of its own
    retired = replace(
        client,
        version=client.version + 1,
        previous_secret_digest=None,
        previous_secret_expires_at=None,
        changed_at=tx.now,
    )
    await store.save_client(tx, retired)
    _record(tx, "lab-changed", retired, Action.UPDATE, reason="secret-retired")


async def deactivate_client(tx: Transaction, client_key: UUID, *, expected_version: int | None) -> Client:
    """Let the client in no more, now; its tokens are void."""
    old = await _lock(tx, client_key, expected_version)
    gone = replace(
        old,
        version=old.version + 1,
        active=False,
        changed_at=tx.now,
        tokens_valid_from=next_whole_second(tx.now),
    )
    await store.save_client(tx, gone)
    _record(tx, "lab-changed", gone, Action.UPDATE, reason="deactivated")
    _void_tokens(tx, gone, reason_code="deactivated")
    await sessions.end_sessions_of_app(tx, gone.client_id, reason_code="app-deactivated")
    return gone


async def set_sign_in(
    tx: Transaction,
    client_key: UUID,
    *,
    redirect_uris: tuple[str, ...],
    user_scopes: tuple[str, ...],
    known_scopes: frozenset[str],
    expected_version: int | None,
) -> Client:
    """Say where an app may send people back to, and what they may let it do. Sessions that it has end."""
    old = await _lock(tx, client_key, expected_version)
    if old.kind is not ClientKind.APP:
        raise NotFoundError
    if old.certificate is not None:
        raise CertificateNotForPeopleError
    _check_sign_in(redirect_uris, user_scopes, known_scopes)
    changed = replace(
        old, version=old.version + 1, redirect_uris=redirect_uris, user_scopes=user_scopes, changed_at=tx.now
    )
    await store.save_client(tx, changed)
    audit_client(tx, Action.UPDATE, changed, reason="sign-in-changed")
    await sessions.end_sessions_of_app(tx, changed.client_id, reason_code="app-changed")
    return changed


async def set_client_certificate(
    tx: Transaction, client_key: UUID, rule: CertificateRule | None, *, expected_version: int | None
) -> Client:
    """Let a client get tokens with this certificate alone, or by secret and keys again; its tokens are void."""
    old = await _lock(tx, client_key, expected_version)
    if old.is_public or old.redirect_uris:
        raise CertificateNotForPeopleError
    changed = replace(
        old,
        version=old.version + 1,
        certificate=rule,
        changed_at=tx.now,
        tokens_valid_from=next_whole_second(tx.now),
    )
    await store.save_client(tx, changed)
    _record(tx, "lab-changed", changed, Action.UPDATE, reason="certificate-changed")
    _void_tokens(tx, changed, reason_code="certificate-changed")
    return changed


async def set_client_keys(
    tx: Transaction,
    client_key: UUID,
    keys: list[dict[str, Any]] | None,
    *,
    url: str | None,
    expected_version: int | None,
) -> Client:
    """Let a client sign its requests for tokens with these keys from now on; those before are void."""
    old = await _lock(tx, client_key, expected_version)
    if old.is_public:
        raise PublicClientError
    jwks = None if keys is None else check_keys({"keys": keys})
    keyed = replace(old, version=old.version + 1, jwks=jwks, jwks_url=url, changed_at=tx.now)
    await store.save_client(tx, keyed)
    _record(tx, "lab-changed", keyed, Action.UPDATE, reason="keys-changed")
    return keyed


def digest_of(secret: str) -> str:
    """Return a secret's digest as events carry it. A fast hash is enough for 256 random bits."""
    return "sha256:" + hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


async def _check_reach(
    tx: Transaction, command: RegisterClient, known_scopes: frozenset[str], caller: Principal
) -> None:
    if not caller.network:
        raise ForbiddenError("Only those who work in the whole network may register clients.")
    if unknown := unknown_among(command.scopes, known_scopes):
        raise UnknownReferenceError(reference="scopes", unknown=unknown)
    _check_sign_in(command.redirect_uris, command.user_scopes, known_scopes)
    known = await store.known_centre_ids(tx, command.centre_ids)
    if unknown := unknown_among(command.centre_ids, known):
        raise UnknownReferenceError(reference="centre_ids", unknown=unknown)


def _check_sign_in(
    redirect_uris: tuple[str, ...], user_scopes: tuple[str, ...], known_scopes: frozenset[str]
) -> None:
    for uri in redirect_uris:
        check_redirect_uri(uri)
    if unknown := unknown_among(user_scopes, (known_scopes | SMART_SCOPES.keys()) - NEVER_LENT):
        raise UnknownReferenceError(reference="user_scopes", unknown=unknown)


def _void_tokens(tx: Transaction, client: Client, *, reason_code: str) -> None:
    tx.emit(
        tokens_revoked(
            client.id,
            kind="client",
            version=client.version,
            issued_before=client.tokens_valid_from,
            reason_code=reason_code,
        )
    )


async def _lock(tx: Transaction, client_key: UUID, expected_version: int | None) -> Client:
    client = await store.lock_client(tx, client_key)
    if client is None:
        raise NotFoundError
    tx.require_version(client.version, expected_version)
    if not client.active:
        raise DeactivatedError
    return client


def _record(
    tx: Transaction, event_name: str, client: Client, action: Action, reason: str | None = None
) -> None:
    """Audit the change; of labs, lab-integration hears too."""
    if client.kind is ClientKind.LAB:
        tx.emit(lab_event(event_name, client, now=tx.now))
    audit_client(tx, action, client, reason=reason)


def audit_client(
    tx: Transaction,
    action: Action,
    client: Client | None,
    *,
    outcome: Outcome = Outcome.SUCCESS,
    reason: str | None = None,
) -> None:
    tx.audit(
        AuditEntry(
            action=action,
            resource_type="Client",
            resource_id=client.id if client else None,
            outcome=outcome,
            reason=reason,
        )
    )
