"""What the tests of second factors share: an app with a secret, and people who have one."""

import base64
from dataclasses import dataclass
from typing import Any

import httpx
from clinic_identity.totp import code_of_step, step_at

from .conftest import Network


@dataclass
class App:
    """An authenticator app with one secret."""

    network: Network
    secret: bytes

    def code(self, steps: int = 0) -> str:
        return code_of_step(self.secret, step_at(self.network.identity.clock.now()) + steps)


async def enrol_app(network: Network, token: str) -> tuple[App, list[str]]:
    """Add an app to the token's account, as its owner would; returns it with the recovery codes."""
    begun = await network.with_token("POST", "/v1/me/mfa/totp", token, {"label": "My phone"})
    assert begun.status_code == 201, begun.text
    app = App(network, base64.b32decode(begun.json()["secret"]))
    path = f"/v1/me/mfa/totp/{begun.json()['factor_id']}/confirm"
    confirmed = await network.with_token("POST", path, token, {"code": app.code()})
    assert confirmed.status_code == 200, confirmed.text
    return app, confirmed.json()["recovery_codes"]


async def ticket_of(network: Network, login: str, password: str) -> str:
    """Give the right password and return the ticket for the second step."""
    asked = await network.log_in(login, password)
    assert asked.status_code == 401, asked.text
    assert asked.json()["type"] == "/problems/mfa-required"
    return str(asked.json()["ticket"])


async def finish(network: Network, method: str, ticket: str, **shown: Any) -> httpx.Response:
    return await network.identity.http.post(f"/v1/auth/mfa/{method}", json={"ticket": ticket, **shown})
