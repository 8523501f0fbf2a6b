"""Which certificate a caller has shown: on the connection itself, or to a proxy that ends TLS before us.

Anybody can write a header, so it is read from the operator's own proxies alone, and passed on to nobody.
"""

import base64
import binascii
import ssl
from ipaddress import ip_address
from urllib.parse import unquote

from clinic_shared.client_certificates import MAX_CERTIFICATE_BYTES
from clinic_shared.destinations import Network
from clinic_shared.http_server import CLIENT_CERTIFICATE

from clinic_gateway.errors import MalformedRequestError
from clinic_gateway.exchange import Exchange

HEADERS = frozenset((b"client-cert", b"client-cert-chain"))
"""RFC 9440; the chain is of no use: who vouches for a client is known here and at identity."""


class ClientCertificates:
    def __init__(self, proxies: tuple[Network, ...]) -> None:
        self._proxies = proxies

    def shown_by(self, exchange: Exchange) -> bytes | None:
        """Return the caller's certificate in DER. Raises MalformedRequestError for a header that holds none."""
        if self._is_proxy(exchange):
            header = exchange.headers.get(b"client-cert")
            return None if header is None else read_header(header.decode("latin-1"))
        shown: bytes | None = exchange.scope.get("extensions", {}).get(CLIENT_CERTIFICATE)
        return shown

    def _is_proxy(self, exchange: Exchange) -> bool:
        client = exchange.scope.get("client")
        if not self._proxies or not client:
            return False
        address = ip_address(client[0])
        return any(address in network for network in self._proxies)


def read_header(text: str) -> bytes:
    """Return the certificate in a `Client-Cert` (RFC 9440, 2.2), or in nginx's `$ssl_client_escaped_cert`."""
    try:
        if text.startswith(":") and text.endswith(":"):
            shown = base64.b64decode(text[1:-1], validate=True)
        else:
            shown = ssl.PEM_cert_to_DER_cert(unquote(text))
    except (binascii.Error, ValueError):
        raise MalformedRequestError("The Client-Cert header holds no certificate.") from None
    if not 0 < len(shown) <= MAX_CERTIFICATE_BYTES:
        raise MalformedRequestError("The Client-Cert header holds no certificate.")
    return shown
