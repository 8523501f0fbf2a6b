"""What production refuses: secrets that were made for development, known to everybody, or left out.

Whatever this project generates for development carries a mark, so that a copied value is recognised
wherever it ends up: in a URL, in a file, in the text before a PEM block.
"""

import re

from pydantic import BaseModel, SecretStr

DEVELOPMENT_MARK = "dev-only-"
_WELL_KNOWN = re.compile(
    r"//(guest:guest|postgres:postgres|admin:admin|rabbitmq:rabbitmq|clinic:clinic)@"
    r"|changeme|change-me|fictitious|sk_test_|//[^/@:]+:(password|secret|)@",
    re.IGNORECASE,
)


def is_for_development(secret: str) -> bool:
    """Tell whether a secret was made for development or is one that everybody knows."""
    return DEVELOPMENT_MARK in secret or _WELL_KNOWN.search(secret) is not None


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
    if complaints:
        raise ValueError("; ".join(complaints))
