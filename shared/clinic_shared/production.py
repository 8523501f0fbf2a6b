"""What production refuses: secrets made for development, known to everybody or left out; addresses without TLS.

Whatever this project generates for development carries a mark, so that a copied value is recognised
wherever it ends up: in a URL, in a file, in the text before a PEM block.
"""

import re
from urllib.parse import parse_qs, urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import BaseModel, SecretStr

DEVELOPMENT_MARK = "dev-only-"
_WELL_KNOWN = re.compile(
    r"//(guest:guest|postgres:postgres|admin:admin|rabbitmq:rabbitmq|clinic:clinic)@"
    r"|changeme|change-me|fictitious|sk_test_|//[^/@:]+:(password|secret|)@",
    re.IGNORECASE,
)
_THIS_MACHINE = {"localhost", "127.0.0.1", "::1"}
_VERIFYING = {"verify-full", "verify-ca"}
"""The others encrypt for whoever answers (libpq, 34.19)."""


def is_for_development(secret: str) -> bool:
    """Tell whether a secret was made for development or is one that everybody knows."""
    return DEVELOPMENT_MARK in secret or _WELL_KNOWN.search(secret) is not None


def is_this_machine(host: str) -> bool:
    return host in _THIS_MACHINE


def goes_in_clear(address: str) -> bool:
    """Tell whether what is sent there could be read, or answered by somebody else, on its way to another machine."""
    if address.startswith("postgres"):
        return _database_in_clear(address)
    parts = urlsplit(address)
    if parts.hostname in _THIS_MACHINE:
        return False
    unverified = parse_qs(parts.query).get("no_verify_ssl", ["0"]) != ["0"]
    return parts.scheme in {"amqp", "http"} or unverified


def _database_in_clear(address: str) -> bool:
    try:
        told = conninfo_to_dict(address)
    except ProgrammingError:
        return True
    hosts = f"{told.get('host', '')},{told.get('hostaddr', '')}".split(",")
    elsewhere = any(host and host not in _THIS_MACHINE and not host.startswith("/") for host in hosts)
    return elsewhere and told.get("sslmode") not in _VERIFYING


def _addresses(name: str, value: object) -> list[str]:
    """Return what a setting names, which may be several: nodes of a broker, services by name."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        return []
    if name == "upstreams":
        return [pair.partition("=")[2] for pair in text.split(",")]
    if not name.endswith("_url"):
        return []
    return [text] if text.startswith("postgres") else text.split(",")


def _clear_text(settings: BaseModel) -> list[str]:
    """Return the settings with which something crosses the network in clear."""
    found = [
        f"CLINIC_{name.upper()}"
        for name in type(settings).model_fields
        if any(goes_in_clear(address.strip()) for address in _addresses(name, getattr(settings, name)))
    ]
    served_to_others = getattr(settings, "http_host", "127.0.0.1") not in _THIS_MACHINE
    if served_to_others and getattr(settings, "tls_certificate_file", None) is None:
        found.append("CLINIC_TLS_CERTIFICATE_FILE")
    return [*found, *getattr(settings, "plain_doors", ())]


def refuse_what_is_unfit(settings: BaseModel) -> None:
    """Raise ValueError that names every unfit setting, never its value."""
    unfit = [
        f"CLINIC_{name.upper()}"
        for name in type(settings).model_fields
        if isinstance(value := getattr(settings, name), SecretStr)
        and is_for_development(value.get_secret_value())
    ]
    complaints = [f"made for development, refused in production: {', '.join(unfit)}"] if unfit else []
    if getattr(settings, "token_issuer", "").endswith(".invalid"):
        complaints.append("production needs CLINIC_TOKEN_ISSUER, the same for all services and the gateway")
    clear = [] if getattr(settings, "network_is_encrypted", True) else _clear_text(settings)
    if clear:
        complaints.append(
            f"without TLS to another machine: {', '.join(clear)}; or, where a mesh or a VPN encrypts"
            " between machines: CLINIC_NETWORK_IS_ENCRYPTED=true"
        )
    if complaints:
        raise ValueError("; ".join(complaints))
