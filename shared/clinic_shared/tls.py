"""TLS between processes: what a server of ours shows, and whom a client of ours believes.

Databases and the broker are told in their addresses instead (`sslmode` and `sslrootcert`, `cafile`).
"""

import asyncio
import os
import ssl
from pathlib import Path
from typing import Protocol, Self

import structlog

from clinic_shared.health import Health
from clinic_shared.metrics import SECRET_RELOADS
from clinic_shared.reloading import follow_secrets

log = structlog.get_logger()


class _Settings(Protocol):
    @property
    def tls_certificate_file(self) -> Path | None: ...

    @property
    def tls_key_file(self) -> Path | None: ...


class OwnCertificate:
    """A server's certificate in a file: once renewed it is shown to whoever connects from then on.

    With a `client_authority`, clients are asked for one of that authority's, and turned away without one unless
    that is `optional`; who is trusted once stays so until a restart.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path | None = None,
        *,
        client_authority: Path | None = None,
        optional: bool = False,
    ) -> None:
        self._certificate = certificate
        self._key = key
        self._client_authority = client_authority
        self.context = _server_context()
        if client_authority is not None:
            self.context.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
        self.renew()

    @classmethod
    def of(cls, settings: _Settings) -> Self | None:
        """Return what HTTPS is served with; None where HTTP is."""
        file = settings.tls_certificate_file
        return cls(file, settings.tls_key_file) if file is not None else None

    def renew(self) -> None:
        """Read the files again. Raises OSError and keeps the old ones when they can't be used."""
        # First where it harms nobody: a context with half a renewal, a certificate of another key, greets no one.
        for context in (_server_context(), self.context):
            context.load_cert_chain(self._certificate, self._key)
            if self._client_authority is not None:
                context.load_verify_locations(self._client_authority)

    async def follow(self, health: Health, stop: asyncio.Event) -> None:
        """Renew it whenever something has changed in a folder of its files, until told to stop."""
        files = (self._certificate, self._key, self._client_authority)
        folders = {file.parent for file in files if file is not None}
        await asyncio.gather(*(follow_secrets(folder, self.renew, health, stop) for folder in folders))


def _server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def trusting(authority: Path | None) -> ssl.SSLContext:
    """Return what a client checks servers with: this authority alone, or those of the machine."""
    context = ssl.create_default_context(cafile=authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class Trust:
    """Whom a client that lives long believes: what the file says now, an authority that has left it no more."""

    def __init__(self, authority: Path | None) -> None:
        self._authority = authority
        self._seen = _stamp(authority)
        self._context = trusting(authority)

    @property
    def context(self) -> ssl.SSLContext:
        """Another one once the file has changed: connections that were made with the one before aren't used again."""
        seen = _stamp(self._authority)
        if seen != self._seen:
            self._seen = seen
            self._take()
        return self._context

    def _take(self) -> None:
        try:
            self._context = trusting(self._authority)
        except OSError as error:
            SECRET_RELOADS.labels(outcome="refused").inc()
            log.error("authority_refused", error_class=type(error).__name__)  # noqa: TRY400  # the class says it all
        else:
            SECRET_RELOADS.labels(outcome="taken").inc()
            log.info("authority_reloaded")


def _stamp(file: Path | None) -> tuple[int, int, int] | None:
    if file is None:
        return None
    try:
        status = os.stat(file)  # noqa: PTH116  # asked with every request, and a Path takes twice as long
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
