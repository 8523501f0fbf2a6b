"""A certificate of this machine for tests of TLS, and the authority that vouches for it."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

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
    usage = dict.fromkeys(_USAGES, False) | {"digital_signature": True, "key_cert_sign": is_authority}
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_AUTHORITY)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        # What Python 3.13 and later demand (VERIFY_X509_STRICT).
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
