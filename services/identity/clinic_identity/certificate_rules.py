"""What certificate an OAuth client is to show (RFC 8705), pure.

A name counts when an authority of the operator's vouches for it; a certificate that was registered itself needs nobody.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Self

from clinic_shared.client_certificates import thumbprint
from clinic_shared.errors import InvalidRequestError
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

TLS_CLIENT_AUTH: Final = "tls_client_auth"
SELF_SIGNED: Final = "self_signed_tls_client_auth"
MAX_PINNED = 5


class CertificateUnusableError(InvalidRequestError):
    """A client's certificate is registered as what it is, or by one name that it carries."""

    slug = "client-certificate-unusable"
    title = "This certificate can't be registered"
    fix = "Give PEM certificates, or a subject as RFC 4514 writes it: `CN=lab.example.org,O=Example`."


@dataclass(frozen=True, kw_only=True)
class CertificateRule:
    """What a client's certificate must be: one of `pinned` (thumbprints), or any of the authority's with a name.

    `bound`: the tokens it gets come with that certificate only.
    """

    name_kind: str | None = None
    """Of `NAMES`; RFC 8705, 2.1.2."""
    name: str | None = None
    pinned: tuple[str, ...] = ()
    bound: bool = True

    @classmethod
    def of(cls, stored: dict[str, Any]) -> Self:
        return cls(**stored | {"pinned": tuple(stored["pinned"])})

    def names(self, certificate: x509.Certificate) -> bool:
        """Tell whether this is the name in a certificate."""
        if self.name_kind is None or self.name is None:
            return False
        if self.name_kind == "subject_dn":
            return certificate.subject == x509.Name.from_rfc4514_string(self.name)
        return self.name in _alternative_names(certificate, self.name_kind)


_ALTERNATIVES: dict[str, type[x509.GeneralName]] = {
    "san_dns": x509.DNSName,
    "san_uri": x509.UniformResourceIdentifier,
    "san_ip": x509.IPAddress,
    "san_email": x509.RFC822Name,
}
NAMES = ("subject_dn", *_ALTERNATIVES)


def _alternative_names(certificate: x509.Certificate, kind: str) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in found if isinstance(name, _ALTERNATIVES[kind])]


def check_subject(name: str) -> str:
    """Return a subject as it may be registered. Raises CertificateUnusableError."""
    try:
        if not list(x509.Name.from_rfc4514_string(name)):
            raise CertificateUnusableError
    except ValueError:
        raise CertificateUnusableError from None
    return name


def thumbprints_of(pems: Iterable[str]) -> tuple[str, ...]:
    """Return how the certificates are known from now on. Raises CertificateUnusableError."""
    try:
        ders = [x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER) for pem in pems]
    except ValueError:
        raise CertificateUnusableError from None
    return tuple(dict.fromkeys(map(thumbprint, ders)))
