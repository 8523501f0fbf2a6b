"""HL7 v2 over MLLP: the same messages as over HTTP, on a connection that stays open.

A block is answered after it is durable, in the order in which blocks came. Who connects is known by a
client certificate or by its address (`partners.PartnerDirectory.by_peer`); nobody else is listened to.
"""

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import cast

import structlog
from clinic_shared import metrics
from clinic_shared.health import Health
from clinic_shared.loops import keep_running
from clinic_shared.service import Runtime
from clinic_shared.tls import OwnCertificate
from prometheus_client import Counter, Gauge

from clinic_lab_integration.connection import Address
from clinic_lab_integration.mllp_connection import Link
from clinic_lab_integration.partners import PartnerDirectory
from clinic_lab_integration.settings import LabSettings
from clinic_lab_integration.store import Partner

log = structlog.get_logger()

NAME = "mllp"
_READ_AHEAD_BYTES = 64 * 1024
_LAST_ANSWERS_SECONDS = 10.0

CONNECTIONS = Gauge(
    "clinic_lab_mllp_connections", "Connections that laboratories hold open", registry=metrics.REGISTRY
)
REFUSED = Counter(
    "clinic_lab_mllp_refused_total",
    "Connections that nobody was listened to on",
    ["reason"],
    registry=metrics.REGISTRY,
)


async def listen(runtime: Runtime, stop: asyncio.Event) -> None:
    """Listen on the ports that the settings name, if any, until told to stop."""
    settings = cast("LabSettings", runtime.settings)
    if settings.mllp_port or settings.mllp_tls_port:
        health, doors = Health.of(runtime), doors_of(settings)
        server = MllpServer(runtime, doors)
        serving = keep_running(NAME, stop, partial(server.serve, stop), health)
        certificates = [door.certificate for door in doors if door.certificate]
        await asyncio.gather(serving, *(certificate.follow(health, stop) for certificate in certificates))


@dataclass(frozen=True)
class Door:
    port: int
    certificate: OwnCertificate | None = None

    @property
    def tls(self) -> ssl.SSLContext | None:
        return self.certificate.context if self.certificate else None


def doors_of(settings: LabSettings) -> list[Door]:
    doors = [Door(settings.mllp_port)] if settings.mllp_port else []
    return (
        [*doors, Door(settings.mllp_tls_port, certificate_of(settings))] if settings.mllp_tls_port else doors
    )


class MllpServer:
    """The listening sockets and the connections behind them."""

    def __init__(self, runtime: Runtime, doors: Sequence[Door]) -> None:
        self._runtime = runtime
        self._settings = cast("LabSettings", runtime.settings)
        self._doors = doors
        self._links: dict[asyncio.Task[None], Link] = {}
        self._open = 0
        self.ports: tuple[int, ...] = ()

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve until told to stop; what has been read by then is still answered."""
        servers = await self._start()
        self.ports = tuple(server.sockets[0].getsockname()[1] for server in servers)
        Health.of(self._runtime).report(NAME, None)
        log.info("mllp_listening", ports=self.ports)
        try:
            await stop.wait()
        finally:
            for server in servers:
                server.close()
            await self._end_links()

    async def _start(self) -> list[asyncio.Server]:
        host = self._settings.mllp_host or self._settings.http_host
        return [
            await asyncio.start_server(self._welcome, host, door.port, limit=_READ_AHEAD_BYTES, ssl=door.tls)
            for door in self._doors
        ]

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            partner = await self._partner_of(writer)
            if partner is not None:
                await self._attend(Link(self._runtime, partner, reader, writer))
        except (ConnectionError, TimeoutError, ssl.SSLError) as error:
            log.info("mllp_connection_lost", error_class=type(error).__name__)
        except Exception as error:  # a connection ends, the others go on
            log.exception("mllp_connection_failed", exc_info=error)
        finally:
            self._open -= 1
            writer.close()
            with suppress(OSError, ssl.SSLError):
                await writer.wait_closed()

    async def _partner_of(self, writer: asyncio.StreamWriter) -> Partner | None:
        if self._open > self._settings.mllp_connections:
            REFUSED.labels(reason="too-many-connections").inc()
            return None
        peer = _address_of(writer)
        directory = self._runtime.get(PartnerDirectory)
        partner = await directory.by_peer(peer, _certificate_names(writer))
        if partner is None:
            log.warning("mllp_stranger", peer=str(peer))
            REFUSED.labels(reason="unknown-peer").inc()
        return partner

    async def _attend(self, link: Link) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._links[task] = link
        CONNECTIONS.set(len(self._links))
        try:
            await link.run()
        finally:
            del self._links[task]
            CONNECTIONS.set(len(self._links))

    async def _end_links(self) -> None:
        tasks = list(self._links)
        for link in self._links.values():
            link.end()
        if tasks:
            _, hanging = await asyncio.wait(tasks, timeout=_LAST_ANSWERS_SECONDS)
            for task in hanging:
                task.cancel()


def _address_of(writer: asyncio.StreamWriter) -> Address:
    address = ip_address(writer.get_extra_info("peername")[0].partition("%")[0])
    # A socket for both versions shows IPv4 addresses inside IPv6 ones.
    return getattr(address, "ipv4_mapped", None) or address


def _certificate_names(writer: asyncio.StreamWriter) -> frozenset[str]:
    """The names of a certificate that was checked: DNS names, else the common name."""
    certificate = writer.get_extra_info("peercert") or {}
    names = {name for kind, name in certificate.get("subjectAltName", ()) if kind == "DNS"}
    if not names:
        parts = (part for relative in certificate.get("subject", ()) for part in relative)
        names = {value for kind, value in parts if kind == "commonName"}
    return frozenset(names)


def certificate_of(settings: LabSettings) -> OwnCertificate:
    """Ours, asking for a client certificate where its authority is named."""
    if settings.mllp_certificate_file is None:
        raise RuntimeError("CLINIC_MLLP_TLS_PORT needs CLINIC_MLLP_CERTIFICATE_FILE")
    return OwnCertificate(
        settings.mllp_certificate_file, settings.mllp_key_file, client_authority=settings.mllp_client_ca_file
    )
