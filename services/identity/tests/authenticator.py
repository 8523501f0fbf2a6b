"""A passkey in software: what a browser and a security key would send, with each part open to forgery."""

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

RP_ID = "clinic.test"
ORIGIN = "https://clinic.test"
_USER_PRESENT, _USER_VERIFIED, _ATTESTED = 0x01, 0x04, 0x40


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@dataclass
class Authenticator:
    rp_id: str = RP_ID
    origin: str = ORIGIN
    verifies_user: bool = True
    sign_count: int = 0
    credential_id: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def create(self, options: dict[str, Any]) -> dict[str, Any]:
        client_data = self._client_data("webauthn.create", options["challenge"])
        identity = b"\x00" * 16 + len(self.credential_id).to_bytes(2, "big") + self.credential_id
        data = self._data(_ATTESTED) + identity + cbor2.dumps(self._public_key())
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        response = {
            "clientDataJSON": _base64url(client_data),
            "attestationObject": _base64url(attestation),
        }
        return self._credential(response)

    def get(self, options: dict[str, Any]) -> dict[str, Any]:
        self.sign_count += 1
        client_data, data = self._client_data("webauthn.get", options["challenge"]), self._data(0)
        signed = data + hashlib.sha256(client_data).digest()
        response = {
            "clientDataJSON": _base64url(client_data),
            "authenticatorData": _base64url(data),
            "signature": _base64url(self.key.sign(signed, ec.ECDSA(hashes.SHA256()))),
        }
        return self._credential(response)

    def _credential(self, response: dict[str, str]) -> dict[str, Any]:
        own = _base64url(self.credential_id)
        return {"id": own, "rawId": own, "type": "public-key", "response": response}

    def _client_data(self, kind: str, challenge: str) -> bytes:
        return json.dumps({"type": kind, "challenge": challenge, "origin": self.origin}).encode()

    def _data(self, flags: int) -> bytes:
        flags |= _USER_PRESENT | (_USER_VERIFIED if self.verifies_user else 0)
        site = hashlib.sha256(self.rp_id.encode()).digest()
        return site + bytes([flags]) + self.sign_count.to_bytes(4, "big")

    def _public_key(self) -> dict[int, Any]:
        numbers = self.key.public_key().public_numbers()
        x, y = (number.to_bytes(32, "big") for number in (numbers.x, numbers.y))
        return {1: 2, 3: -7, -1: 1, -2: x, -3: y}
