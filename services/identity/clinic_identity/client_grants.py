"""Clients at the token endpoint: that they are who they say, and tokens of their own (RFC 6749, 4.4)."""

import hmac
from dataclasses import dataclass, replace
from typing import Any

from clinic_shared.audit import Action, Outcome
from clinic_shared.auth import LIFETIME_SECONDS, claims_of
from clinic_shared.client_certificates import thumbprint
from clinic_shared.context import Context
from clinic_shared.database import Transaction
from clinic_shared.principal import Principal

from clinic_identity import store
from clinic_identity.client_assertions import AssertionRefusedError, client_id_in, key_id_in, use_assertion
from clinic_identity.clients import LAB_ROLE, audit_client, digest_of
from clinic_identity.desk import Desk
from clinic_identity.oauth_domain import Client, ClientKind
from clinic_identity.oauth_forms import Presented, Refused
from clinic_identity.roles import scopes_of


@dataclass(frozen=True, kw_only=True)
class Granted:
    access_token: str
    scopes: frozenset[str]
    expires_in_seconds: int = LIFETIME_SECONDS
    refresh_token: str | None = None
    id_token: str | None = None
    patient_id: str | None = None


async def authenticate(tx: Transaction, desk: Desk, presented: Presented) -> Client | Refused:
    """Return the client that has proved to be asking. Refusals are recorded, so they don't raise."""
    if presented.assertion is not None:
        return await _by_assertion(tx, desk, presented.assertion, presented.client_id)
    client = await store.find_client(tx, presented.client_id)
    if client is None or not client.active or not _proves(desk, client, presented, tx):
        return _refuse(tx, client, "The client, its secret or its certificate is not known.")
    return client


async def read_keys_of(desk: Desk, context: Context, presented: Presented) -> None:
    """See to it that the keys of whoever signed are at hand, if they publish them."""
    if presented.assertion is None:
        return
    try:
        client_id, key_id = client_id_in(presented.assertion), key_id_in(presented.assertion)
    except AssertionRefusedError:
        return  # it will be refused with what is at hand, and recorded
    async with desk.database.transaction(context) as tx:
        client = await store.find_client(tx, client_id)
    if client is not None and client.active and client.jwks_url is not None:
        await desk.client_keys.refresh(client.jwks_url, key_id)


def keys_of(desk: Desk, client: Client) -> dict[str, Any]:
    if client.jwks_url is not None:
        return desk.client_keys.known(client.jwks_url)
    return client.jwks or {"keys": []}


async def _by_assertion(tx: Transaction, desk: Desk, assertion: str, client_id: str) -> Client | Refused:
    client = None
    try:
        client = await store.find_client(tx, client_id_in(assertion))
        if client is None or not client.active or client_id not in {"", client.client_id}:
            raise AssertionRefusedError("The client is not known.")  # noqa: TRY301  # as every other refusal
        if client.certificate is not None:
            raise AssertionRefusedError("The client shows a certificate.")  # noqa: TRY301
        audiences = {desk.settings.token_endpoint}
        await use_assertion(tx, client, assertion, jwks=keys_of(desk, client), audiences=audiences)
    except AssertionRefusedError as refused:
        return _refuse(tx, client, str(refused))
    return client


async def grant_own_token(
    tx: Transaction, desk: Desk, client: Client, scope: str | None, *, certificate: bytes | None
) -> Granted | Refused:
    """Return a token of the client's own, or why not."""
    principal = await _principal_of(tx, client)
    wanted = frozenset(scope.split()) if scope is not None else principal.scopes
    if not principal.scopes:
        return Refused("unauthorized_client", "The client acts for people only, not in its own name.")
    if not wanted or not wanted <= principal.scopes:
        return Refused("invalid_scope", "A scope was asked for that the client doesn't have.")
    audit_client(tx, Action.EXECUTE, client)
    claims = claims_of(
        replace(principal, scopes=wanted, certificate=_binding(client, certificate)),
        issued_at=max(tx.now, client.tokens_valid_from),
        client_id=client.client_id,
    )
    return Granted(access_token=desk.keys.signer.sign(claims), scopes=wanted)


def _binding(client: Client, certificate: bytes | None) -> str | None:
    """Return what the client's tokens are bound to; it has shown the certificate just now."""
    if certificate is None or client.certificate is None or not client.certificate.bound:
        return None
    return thumbprint(certificate)


def _proves(desk: Desk, client: Client, presented: Presented, tx: Transaction) -> bool:
    secret = presented.client_secret
    if client.certificate is not None:
        return desk.certificates.prove(presented.certificate, client.certificate, tx.now)
    if client.is_public:
        return secret is None
    given = digest_of(secret or "")
    return any(hmac.compare_digest(given, digest) for digest in client.secret_digests(tx.now))


def _refuse(tx: Transaction, client: Client | None, description: str) -> Refused:
    audit_client(tx, Action.EXECUTE, client, outcome=Outcome.DENIED, reason="invalid-client")
    return Refused("invalid_client", description)


async def _principal_of(tx: Transaction, client: Client) -> Principal:
    is_lab = client.kind is ClientKind.LAB
    return Principal(
        subject=client.id,
        kind="client",
        roles=frozenset({LAB_ROLE}) if is_lab else frozenset(),
        scopes=await scopes_of(tx, [LAB_ROLE]) if is_lab else frozenset(client.scopes),
        network=client.network,
        centre_ids=frozenset(client.centre_ids),
    )
