"""Certificates as OAuth clients' proof (RFC 8705): which one was shown, and who vouches for the name in it."""

from datetime import datetime
from pathlib import Path

import structlog
from clinic_shared.client_certificates import HEADER, read_vouched, thumbprint
from clinic_shared.internal_tokens import read_gateway_keys
from clinic_shared.jwks import StaticKeys
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import ExtensionPolicy, PolicyBuilder, Store, VerificationError
from starlette.requests import Request

from clinic_identity.certificate_rules import CertificateRule
from clinic_identity.settings import IdentitySettings

log = structlog.get_logger()

_PEM_BEGINS = "-----BEGIN X509 CRL-----"


class Authorities:
    """Who vouches for the names in clients' certificates: CAs that sign them, and what they have revoked.

    The file is read again once it has changed; what can't be used leaves what was known before.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        self._known: list[x509.Certificate] = []
        self._revocations: list[x509.CertificateRevocationList] = []

    def vouch_for(self, certificate: x509.Certificate, now: datetime) -> bool:
        self._read_again()
        if not self._known:
            return False
        # What a client's certificate holds besides a name is its authority's business.
        authority, anything = ExtensionPolicy.webpki_defaults_ca(), ExtensionPolicy.permit_all()
        policy = PolicyBuilder().store(Store(self._known)).time(now)
        policy = policy.extension_policies(ca_policy=authority, ee_policy=anything)
        try:
            chain = policy.build_client_verifier().verify(certificate, []).chain
        except VerificationError:
            return False
        return _is_for_clients(certificate) and not self._is_revoked(certificate, chain[1])

    def _is_revoked(self, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
        return any(
            told.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
            for told in self._revocations
            if told.issuer == issuer.subject and told.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
        )

    def _read_again(self) -> None:
        if self._file is None:
            return
        try:
            status = self._file.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp != self._seen:
                self._take(self._file.read_text(encoding="ascii"))
                self._seen = stamp
        except (OSError, ValueError) as error:
            log.warning("client_authorities_unreadable", error_class=type(error).__name__)

    def _take(self, text: str) -> None:
        known = x509.load_pem_x509_certificates(text.encode())
        lists = [_PEM_BEGINS + part for part in text.split(_PEM_BEGINS)[1:]]
        self._revocations = [x509.load_pem_x509_crl(told.encode()) for told in lists]
        self._known = known


def _is_for_clients(certificate: x509.Certificate) -> bool:
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.CLIENT_AUTH in usages


class ClientCertificates:
    """What was shown with a request, as the gateway says, and what it proves."""

    def __init__(self, settings: IdentitySettings) -> None:
        self._authorities = Authorities(settings.client_authorities_file)
        self._gateway = StaticKeys(read_gateway_keys(settings.secrets_dir) or {"keys": []})

    async def shown(self, request: Request, now: datetime) -> bytes | None:
        """Return the certificate in DER; none where it isn't the gateway that speaks of one."""
        said = request.headers.get(HEADER)
        if said is None:
            return None
        try:
            return await read_vouched(said, self._gateway, service="identity", now=int(now.timestamp()))
        except ValueError:
            log.warning("client_certificate_not_vouched_for")
            return None

    def prove(self, shown: bytes | None, rule: CertificateRule, now: datetime) -> bool:
        """Tell whether a certificate is the one that a client is to show."""
        try:
            certificate = x509.load_der_x509_certificate(shown or b"")
            if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
                return False
            if rule.pinned:
                return thumbprint(shown or b"") in rule.pinned
            return rule.names(certificate) and self._authorities.vouch_for(certificate, now)
        except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
            return False
