"""Chromium's virtual authenticators: security keys that the browser itself makes, and asks as it asks real ones."""

import json
from dataclasses import dataclass
from typing import Any

from .chromium import Page

_KEY = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


@dataclass
class VirtualKey:
    """A key that is plugged into one page's browser."""

    page: Page
    authenticator_id: str

    @classmethod
    async def plugged_in(cls, page: Page, **changes: Any) -> "VirtualKey":
        await page.call("WebAuthn.enable")
        made = await page.call("WebAuthn.addVirtualAuthenticator", options=_KEY | changes)
        return cls(page, made["authenticatorId"])

    async def create(self, options: dict[str, Any]) -> dict[str, Any]:
        """Do as a page does with what identity hands to `navigator.credentials.create`."""
        given = f"PublicKeyCredential.parseCreationOptionsFromJSON({json.dumps(options)})"
        return dict(
            await self.page.run(
                f"navigator.credentials.create({{publicKey: {given}}}).then((c) => c.toJSON())"
            )
        )

    async def get(self, options: dict[str, Any]) -> dict[str, Any]:
        given = f"PublicKeyCredential.parseRequestOptionsFromJSON({json.dumps(options)})"
        return dict(
            await self.page.run(f"navigator.credentials.get({{publicKey: {given}}}).then((c) => c.toJSON())")
        )

    async def credential(self) -> dict[str, Any]:
        """Return the one passkey in it, private key and all."""
        kept = await self.page.call("WebAuthn.getCredentials", authenticatorId=self.authenticator_id)
        (only,) = kept["credentials"]
        return dict(only)

    async def put(self, credential: dict[str, Any]) -> None:
        await self.page.call(
            "WebAuthn.addCredential", authenticatorId=self.authenticator_id, credential=credential
        )

    async def unplug(self) -> None:
        await self.page.call("WebAuthn.removeVirtualAuthenticator", authenticatorId=self.authenticator_id)

    async def verify_user(self, *, verified: bool) -> None:
        """Let whoever uses it be recognised from now on, or not."""
        await self.page.call(
            "WebAuthn.setUserVerified", authenticatorId=self.authenticator_id, isUserVerified=verified
        )
