"""Vault's transit engine and AWS KMS as their documentation says they answer, with keys that live as long as they do."""

import base64
import os
from collections.abc import Callable
from typing import Any

from clinic_shared.encryption.kms import Credentials, signed
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

NONCE_BYTES = 12


class TransitEngine:
    """`transit/encrypt/KEY` and `transit/decrypt/KEY` for one token; rotating adds a version, old ones still open."""

    def __init__(self, *, key: str, token: str) -> None:
        self._key, self._token = key, token
        self._versions = [AESGCM(os.urandom(32))]
        self.sealed = False
        self.asked = 0

    def rotate(self) -> None:
        self._versions.append(AESGCM(os.urandom(32)))

    def routes(self) -> list[Route]:
        return [Route("/v1/transit/{operation}/{key}", self._answer, methods=["POST", "PUT"])]

    async def _answer(self, request: Request) -> Response:
        self.asked += 1
        if self.sealed:
            return _refusal(503, "Vault is sealed")
        if request.headers.get("x-vault-token") != self._token or request.path_params["key"] != self._key:
            return _refusal(403, "permission denied")
        operations: dict[str, Callable[[dict[str, str]], dict[str, Any]]] = {
            "encrypt": self._encrypt,
            "decrypt": self._decrypt,
        }
        try:
            done = operations[request.path_params["operation"]](await request.json())
        except KeyError:
            return _refusal(404)
        except (InvalidTag, ValueError, IndexError):
            return _refusal(400, "cipher: message authentication failed")
        return JSONResponse({"request_id": os.urandom(4).hex(), "data": done})

    def _encrypt(self, body: dict[str, str]) -> dict[str, Any]:
        nonce = os.urandom(NONCE_BYTES)
        plain = base64.b64decode(body["plaintext"], validate=True)
        sealed = nonce + self._versions[-1].encrypt(nonce, plain, _associated(body))
        version = len(self._versions)
        return {"ciphertext": f"vault:v{version}:{base64.b64encode(sealed).decode()}", "key_version": version}

    def _decrypt(self, body: dict[str, str]) -> dict[str, Any]:
        mark, version, text = body["ciphertext"].split(":")
        if mark != "vault":
            raise ValueError(mark)
        sealed = base64.b64decode(text, validate=True)
        cipher = self._versions[int(version.removeprefix("v")) - 1]
        plain = cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _associated(body))
        return {"plaintext": base64.b64encode(plain).decode()}


def _associated(body: dict[str, str]) -> bytes:
    return base64.b64decode(body.get("associated_data", ""))


def _refusal(status: int, *errors: str) -> Response:
    return JSONResponse({"errors": list(errors)}, status_code=status)


class KeyManagementService:
    """`TrentService.Encrypt` and `Decrypt` for one key, with the signature of every request checked."""

    def __init__(self, *, key: str, credentials: Credentials, region: str) -> None:
        self._key, self._credentials, self._region = key, credentials, region
        self._cipher = AESGCM(os.urandom(32))
        self.away = False

    def routes(self) -> list[Route]:
        return [Route("/", self._answer, methods=["POST"])]

    async def _answer(self, request: Request) -> Response:
        content = await request.body()
        if self.away:
            return _fault("KMSInternalException", 500)
        if not self._is_signed(request, content):
            return _fault("InvalidSignatureException", 403)
        body = await request.json()
        if body.get("KeyId") != self._key:
            return _fault("NotFoundException")
        context = str(sorted(body.get("EncryptionContext", {}).items())).encode()
        if request.headers["x-amz-target"] == "TrentService.Encrypt":
            nonce = os.urandom(NONCE_BYTES)
            sealed = nonce + self._cipher.encrypt(nonce, base64.b64decode(body["Plaintext"]), context)
            return _done(KeyId=self._key, CiphertextBlob=base64.b64encode(sealed).decode())
        sealed = base64.b64decode(body["CiphertextBlob"])
        try:
            plain = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)
        except InvalidTag:
            return _fault("InvalidCiphertextException")
        return _done(KeyId=self._key, Plaintext=base64.b64encode(plain).decode())

    def _is_signed(self, request: Request, content: bytes) -> bool:
        given = request.headers.get("authorization", "")
        _, _, rest = given.partition("SignedHeaders=")
        names = rest.partition(",")[0].split(";")
        if not {"host", "x-amz-date", "x-amz-target"} <= set(names):
            return False
        headers = {name: request.headers.get(name, "") for name in names}
        expected = signed(
            request.method,
            headers,
            content,
            credentials=self._credentials,
            region=self._region,
            service="kms",
        )
        return given == expected


def _done(**answer: str) -> Response:
    return JSONResponse({**answer, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"})


def _fault(kind: str, status: int = 400) -> Response:
    return JSONResponse({"__type": kind}, status_code=status)
