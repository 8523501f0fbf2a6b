"""Certificates for tests of TLS: of this machine, and of clients, with the authorities that vouch for them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
_AUTHORITY = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "A fictitious authority")])
_MACHINE = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "machine.example.org")])


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate of 127.0.0.1 with its key into one file, its authority's into another; return both."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _signed(_AUTHORITY, authority_key, authority_key, is_authority=True)
    certificate = _signed(_MACHINE, key, authority_key, is_authority=False)
    file, trusted = folder / "machine.pem", folder / "authority.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(secret + certificate.public_bytes(Encoding.PEM))
    trusted.write_bytes(authority.public_bytes(Encoding.PEM))
    return file, trusted


def _signed(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    authority_key: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool,
) -> x509.Certificate:
    made = _certificate(
        subject,
        key,
        issuer=_AUTHORITY,
        issuer_key=authority_key,
        now=datetime.now(UTC),
        is_authority=is_authority,
    )
    machine = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    return made.add_extension(machine, critical=False).sign(authority_key, hashes.SHA256())


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: datetime,
    until: datetime | None = None,
    is_authority: bool = False,
) -> x509.CertificateBuilder:
    usage = dict.fromkeys(_USAGES, False) | {"digital_signature": True, "key_cert_sign": is_authority}
    known_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(until or now + timedelta(days=1))
        # What Python 3.13 and later demand (VERIFY_X509_STRICT).
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(known_by, critical=False)
    )


@dataclass(frozen=True)
class ClientCertificate:
    """What a client shows, with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def write(self, file: Path) -> Path:
        """Write it with its key into one file."""
        secret = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(secret + self.pem.encode())
        return file


class Authority:
    """Signs clients' certificates, each good for a day around `now` unless told otherwise."""

    def __init__(self, name: str = "A fictitious authority of laboratories", *, now: datetime) -> None:
        self.now = now
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.own = self._sign(self._name, self._key, is_authority=True)

    @property
    def pem(self) -> str:
        return self.own.pem

    def sign(
        self, subject: str, *more: x509.ExtensionType, until: datetime | None = None
    ) -> ClientCertificate:
        """Sign a certificate of this subject (RFC 4514)."""
        key = ec.generate_private_key(ec.SECP256R1())
        return self._sign(x509.Name.from_rfc4514_string(subject), key, *more, until=until)

    def revoke(self, *revoked: ClientCertificate) -> str:
        """Return the list of these, in PEM."""
        told = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        told = told.last_update(self.now).next_update(self.now + timedelta(days=1))
        for one in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(one.certificate.serial_number)
            told = told.add_revoked_certificate(entry.revocation_date(self.now).build())
        return told.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    def _sign(
        self, subject: x509.Name, key: Any, *more: x509.ExtensionType, **changes: Any
    ) -> ClientCertificate:
        made = _certificate(subject, key, issuer=self._name, issuer_key=self._key, now=self.now, **changes)
        for extension in more:
            made = made.add_extension(extension, critical=False)
        return ClientCertificate(made.sign(self._key, hashes.SHA256()), key)


def self_signed(subject: str, *, now: datetime, until: datetime | None = None) -> ClientCertificate:
    """Return a certificate that nobody vouches for."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name.from_rfc4514_string(subject)
    made = _certificate(name, key, issuer=name, issuer_key=key, now=now, until=until)
    return ClientCertificate(made.sign(key, hashes.SHA256()), key)
