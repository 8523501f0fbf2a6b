"""Keys wrapped by AWS Key Management Service, or by what speaks its protocol (KMS API 2014-11-01, AWS JSON 1.1).

The credentials need `kms:Encrypt` and `kms:Decrypt` on one key. Requests are signed with Signature Version 4
(https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html).
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import httpx
import orjson

from clinic_shared.encryption.providers import ProviderError, ask

_TERMINATOR = "aws4_request"
_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True)
class Credentials:
    access_key_id: str
    secret_access_key: str
    session_token: str | None = None

    @classmethod
    def read(cls, text: str) -> "Credentials":
        """Read `ID:SECRET` or `ID:SECRET:SESSION`. Raises ProviderError."""
        parts = text.split(":", 2)
        if len(parts) < 2 or not all(parts):  # noqa: PLR2004  # an id and a secret
            raise ProviderError("the key service's credentials aren't ID:SECRET")
        return cls(*parts)


def signed(
    method: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    credentials: Credentials,
    region: str,
    service: str,
) -> str:
    """Return the Authorization header of a request for `/`, all of whose headers are signed, `x-amz-date` among them."""
    names = sorted(name.lower() for name in headers)
    lowered = {name.lower(): value.strip() for name, value in headers.items()}
    canonical = "\n".join(
        [
            method,
            "/",
            "",
            *(f"{name}:{lowered[name]}" for name in names),
            "",
            ";".join(names),
            hashlib.sha256(body).hexdigest(),
        ]
    )
    at = lowered["x-amz-date"]
    scope = f"{at[:8]}/{region}/{service}/{_TERMINATOR}"
    to_sign = "\n".join([_ALGORITHM, at, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{credentials.secret_access_key}".encode()
    for part in (at[:8], region, service, _TERMINATOR):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.new(key, to_sign.encode(), "sha256").hexdigest()
    return (
        f"{_ALGORITHM} Credential={credentials.access_key_id}/{scope}, "
        f"SignedHeaders={';'.join(names)}, Signature={signature}"
    )


class Kms:
    """One symmetric key; the purpose is the encryption context, which is authenticated and logged there."""

    name: Literal["file", "vault", "kms"] = "kms"

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        key: str,
        credentials: Credentials,
        region: str,
        lease_seconds: float | None,
    ) -> None:
        self._http = http
        self._key = key
        self._credentials = credentials
        self._region = region
        self.lease_seconds = lease_seconds

    async def wrap(self, key: bytes, *, purpose: str) -> str:
        answer = await self._ask("Encrypt", purpose, Plaintext=base64.b64encode(key).decode())
        return str(answer["CiphertextBlob"])

    async def unwrap(self, wrapped: str, *, purpose: str) -> bytes:
        answer = await self._ask("Decrypt", purpose, CiphertextBlob=wrapped)
        return base64.b64decode(str(answer["Plaintext"]))

    async def _ask(self, operation: str, purpose: str, **body: str) -> dict[str, object]:
        content = orjson.dumps({"KeyId": self._key, "EncryptionContext": {"purpose": purpose}, **body})
        url = httpx.URL(self._http.base_url)
        headers = {
            "host": url.netloc.decode(),
            "content-type": "application/x-amz-json-1.1",
            "x-amz-date": datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"),
            "x-amz-target": f"TrentService.{operation}",
        }
        if self._credentials.session_token is not None:
            headers["x-amz-security-token"] = self._credentials.session_token
        headers["authorization"] = signed(
            "POST",
            headers,
            content,
            credentials=self._credentials,
            region=self._region,
            service="kms",
        )
        request = self._http.build_request("POST", "/", content=content, headers=headers)
        answer = await ask(self._http, request, f"kms {operation}")
        if not {"CiphertextBlob", "Plaintext"} & answer.keys():
            raise ProviderError(f"kms {operation}: an answer without a key")
        return answer
