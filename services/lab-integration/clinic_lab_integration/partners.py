"""Laboratories: who may post, checked in memory, and how each is configured.

Partners are kept in memory and read again every few seconds, so that a laboratory is let in while the
database is down. A partner or secret that isn't there is looked for at once: it may be new.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import cast
from uuid import UUID
from zoneinfo import ZoneInfo

import structlog
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.destinations import DestinationRefusedError
from clinic_shared.errors import (
    ForbiddenError,
    ReferenceNotYetKnownError,
    TemporarilyUnavailableError,
    UnauthenticatedError,
)
from clinic_shared.failures import is_disconnect
from clinic_shared.health import Health
from clinic_shared.loops import keep_running, pause
from clinic_shared.principal import Principal
from clinic_shared.service import Runtime

from clinic_lab_integration import store
from clinic_lab_integration.connection import Address, Connection, Protocol
from clinic_lab_integration.errors import (
    LaboratoryAddressRefusedError,
    PartnerDisabledError,
    ProtocolNotAgreedError,
)
from clinic_lab_integration.pace import Pace
from clinic_lab_integration.settings import LabSettings
from clinic_lab_integration.store import Partner

log = structlog.get_logger()

SEND = "lab-messages.send"
_STRANGERS_SECONDS = 1.0
_NOBODY = "sha256:" + "0" * 64


class PartnerDirectory:
    """The partners in memory."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._by_id: dict[UUID, Partner] = {}
        self._by_client_id: dict[str, Partner] = {}
        self._refreshing = asyncio.Lock()
        self._read_at = 0.0

    async def refresh(self) -> None:
        """Read the partners as they are now. One at a time: an older reading must not replace a newer one."""
        asked_at = time.monotonic()
        async with self._refreshing:
            if self._read_at > asked_at:
                return
            started_at = time.monotonic()
            async with self._runtime.database.transaction() as tx:
                partners = await store.list_partners(tx)
            self._by_id = {partner.partner_id: partner for partner in partners}
            self._by_client_id = {partner.client_id: partner for partner in partners}
            self._read_at = started_at

    async def by_credentials(self, client_id: str, secret: str) -> Partner:
        """Raises UnauthenticatedError; TemporarilyUnavailableError when nobody can say whether they are new."""
        found = self._check(client_id, secret)
        if found is None:
            await self._look_again()
            found = self._check(client_id, secret)
        if found is None:
            raise UnauthenticatedError("The client id or its secret is not valid.")
        return found

    async def by_id(self, partner_id: UUID) -> Partner | None:
        if partner_id not in self._by_id:
            await self._look_again()
        found = self._by_id.get(partner_id)
        return found if found is not None and found.active else None

    def by_client_id(self, client_id: str) -> Partner | None:
        """Return a partner whom a folder's name means; a new one is known a few seconds later."""
        found = self._by_client_id.get(client_id)
        return found if found is not None and found.active else None

    async def by_peer(self, peer: Address, certificate_names: frozenset[str]) -> Partner | None:
        """Whom a peer over MLLP speaks for: the one partner whose configuration means it most exactly."""
        found = self._nearest(peer, certificate_names)
        if found is None:
            # Anybody can connect, so strangers must not make us read the database more often than that.
            await asyncio.sleep(max(0.0, self._read_at + _STRANGERS_SECONDS - time.monotonic()))
            await self._look_again()
            found = self._nearest(peer, certificate_names)
        return found

    def _nearest(self, peer: Address, certificate_names: frozenset[str]) -> Partner | None:
        meant = [
            (nearness, partner)
            for partner in self._by_id.values()
            if partner.active
            and (nearness := partner.connection.nearness(peer, certificate_names)) is not None
        ]
        best = max((nearness for nearness, _ in meant), default=None)
        nearest = [partner for nearness, partner in meant if nearness == best]
        return nearest[0] if len(nearest) == 1 else None

    def _check(self, client_id: str, secret: str) -> Partner | None:
        given = "sha256:" + hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
        found = self._by_client_id.get(client_id)
        digests = found.secret_digests if found is not None and found.active else (_NOBODY,)
        # All are compared, each in constant time: nothing tells which one was nearly right.
        right = [hmac.compare_digest(given, digest) for digest in digests]
        return found if any(right) else None

    async def _look_again(self) -> None:
        try:
            await self.refresh()
        except Exception as error:
            if is_disconnect(error):
                raise TemporarilyUnavailableError from error
            raise


@asynccontextmanager
async def keep_directory(runtime: Runtime) -> AsyncIterator[None]:
    """Keep the partners in memory while the process runs."""
    directory = PartnerDirectory(runtime)
    runtime.provide(directory)
    runtime.provide(Pace())
    stop = asyncio.Event()
    health = Health.of(runtime)
    seconds = cast("LabSettings", runtime.settings).partner_refresh_seconds
    work = partial(_refresh_until, stop, directory, seconds, health)
    refreshing = asyncio.create_task(keep_running("lab-partners", stop, work, health))
    try:
        yield
    finally:
        stop.set()
        # A hung database must not hold up the end of the process.
        refreshing.cancel()
        with suppress(asyncio.CancelledError):
            await refreshing


async def _refresh_until(
    stop: asyncio.Event, directory: PartnerDirectory, seconds: float, health: Health
) -> None:
    while not stop.is_set():
        await directory.refresh()
        health.report("lab-partners", None)
        await pause(stop, seconds)


def principal_of(partner: Partner) -> Principal:
    """A partner that came with its secret, as if it had a token."""
    return Principal(
        subject=partner.partner_id, kind="client", roles=frozenset({"lab"}), scopes=frozenset({SEND})
    )


async def authenticate(runtime: Runtime, authorization: list[str]) -> Principal:
    """Accept HTTP Basic with a partner's secret, or an access token. Raises UnauthenticatedError."""
    scheme, _, value = authorization[0].partition(" ") if len(authorization) == 1 else ("", "", "")
    if scheme.lower() == "basic":
        client_id, secret = _credentials(value.strip(" "))
        return principal_of(await runtime.get(PartnerDirectory).by_credentials(client_id, secret))
    if scheme.lower() == "bearer":
        return await runtime.verifier.verify(value.strip(" "))
    raise UnauthenticatedError("Send HTTP Basic with the client id and secret, or one access token.")


def _credentials(encoded: str) -> tuple[str, str]:
    """RFC 7617, 2: the first colon separates."""
    try:
        client_id, colon, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        client_id, colon, secret = "", "", ""
    if not colon:
        raise UnauthenticatedError("The client id or its secret is not valid.")
    return client_id, secret


async def sender(runtime: Runtime, caller: Principal, protocol: Protocol = Protocol.HTTP) -> Partner:
    """The laboratory that the caller is. Raises ForbiddenError, PartnerDisabledError, ProtocolNotAgreedError."""
    if not caller.may(SEND):
        raise ForbiddenError("Your roles don't include this action.", permission=SEND)
    partner = await runtime.get(PartnerDirectory).by_id(caller.subject)
    if partner is None:
        raise ForbiddenError("The caller is no laboratory of this network.")
    if not partner.enabled:
        raise PartnerDisabledError
    if protocol not in partner.connection.protocols:
        raise ProtocolNotAgreedError(protocol=protocol.value)
    return partner


@dataclass(frozen=True, kw_only=True)
class ConfigurePartner:
    enabled: bool
    time_zone: str | None
    default_charset: str | None
    identifier_authorities: dict[str, str]
    default_department_id: UUID | None
    critical_acknowledge_seconds: int
    connection: Connection


def require_allowed(runtime: Runtime, url: str) -> None:
    """Refuse an address that we won't connect to, as far as its text tells. Raises LaboratoryAddressRefusedError."""
    try:
        cast("LabSettings", runtime.settings).destinations.check(url)
    except DestinationRefusedError as error:
        raise LaboratoryAddressRefusedError(str(error)) from None


async def configure(
    tx: Transaction, partner_id: UUID, command: ConfigurePartner, *, expected_version: int | None
) -> Partner:
    """Replace a laboratory's configuration."""
    old = await store.find_partner(tx, partner_id, lock=True)
    if old is None:
        raise ReferenceNotYetKnownError("The laboratory is not known here yet.", reference="partner_id")
    tx.require_version(old.version, expected_version)
    department_id = command.default_department_id
    if department_id is not None and await store.find_department(tx, department_id) is None:
        raise ReferenceNotYetKnownError(
            "The department is not known here yet.", reference="default_department_id"
        )
    configured = replace(old, version=old.version + 1, **vars(command))
    await store.save_configuration(tx, configured)
    tx.audit(AuditEntry(action=Action.UPDATE, resource_type="LabPartner", resource_id=partner_id))
    return configured


def zone_of(partner: Partner | None) -> ZoneInfo | None:
    return ZoneInfo(partner.time_zone) if partner and partner.time_zone else None
