"""Keys wrapped by HashiCorp Vault's transit engine (https://developer.hashicorp.com/vault/api-docs/secret/transit).

The token needs `update` on `transit/encrypt/KEY` and `transit/decrypt/KEY` and nothing else. Rotating the key in
Vault changes nothing here: what an older version wrapped still opens.
"""

import base64
from typing import Literal

import httpx

from clinic_shared.encryption.providers import ProviderError, ask


class Vault:
    """One key of the transit engine, of type aes256-gcm96, so that the purpose is authenticated."""

    name: Literal["file", "vault", "kms"] = "vault"

    def __init__(self, http: httpx.AsyncClient, *, key: str, token: str, lease_seconds: float | None) -> None:
        self._http = http
        self._key = key
        self._headers = {"X-Vault-Token": token, "X-Vault-Request": "true"}
        self.lease_seconds = lease_seconds

    async def wrap(self, key: bytes, *, purpose: str) -> str:
        wrapped = await self._ask("encrypt", purpose, plaintext=base64.b64encode(key).decode())
        return str(wrapped["ciphertext"])

    async def unwrap(self, wrapped: str, *, purpose: str) -> bytes:
        opened = await self._ask("decrypt", purpose, ciphertext=wrapped)
        return base64.b64decode(str(opened["plaintext"]))

    async def _ask(self, operation: str, purpose: str, **body: str) -> dict[str, object]:
        body["associated_data"] = base64.b64encode(purpose.encode()).decode()
        request = self._http.build_request(
            "POST", f"/v1/transit/{operation}/{self._key}", json=body, headers=self._headers
        )
        answer = await ask(self._http, request, f"vault {operation}")
        try:
            return dict(answer["data"])
        except (KeyError, TypeError, ValueError):
            raise ProviderError(f"vault {operation}: an answer without data") from None
