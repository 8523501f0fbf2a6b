"""What the tests of apps share: an app as its makers write it, and a person in front of its login page."""

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from .conftest import Network

CALLBACK = "https://app.example.org/callback"
LOOPBACK = "http://127.0.0.1/callback"
PUBLIC_APP = {
    "kind": "app",
    "name": "Test <app>",
    "client_id": "app-mobile",
    "public": True,
    "redirect_uris": [CALLBACK, LOOPBACK, "org.example.app:/callback"],
    "user_scopes": ["appointments.read", "appointments.book", "chart.read"],
}
ALL_SCOPES = "openid fhirUser launch/patient offline_access appointments.read chart.read"


@dataclass
class Form:
    action: str
    fields: dict[str, str]


class Page(HTMLParser):
    """A page as a browser without scripts sees it."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        self.answer = answer
        self.forms: list[Form] = []
        self.labels: set[str] = set()
        self.ids: set[str] = set()
        self.tags: set[str] = set()
        self.options: dict[str, Any] = {}
        self.feed(answer.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        if tag == "form":
            self.forms.append(Form(given["action"], {}))
            self.options = json.loads(given.get("data-options", "null")) or self.options
        elif tag == "label":
            self.labels.add(given["for"])
        elif tag == "input":
            self.forms[-1].fields[given["name"]] = given.get("value", "")
            if given.get("type") != "hidden":
                self.ids.add(given["id"])


@dataclass
class App:
    """The client's side of the protocol."""

    network: Network
    client_id: str = "app-mobile"
    redirect_uri: str = CALLBACK
    secret: str | None = None
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))

    @property
    def challenge(self) -> str:
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def asks(self, **changes: str | None) -> dict[str, str]:
        asked = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": ALL_SCOPES,
            "state": "state of the app",
            "nonce": "nonce of the app",
            "code_challenge": self.challenge,
            "code_challenge_method": "S256",
            **changes,
        }
        return {name: value for name, value in asked.items() if value is not None}

    async def open(self, **changes: str | None) -> httpx.Response:
        return await self.network.identity.http.get("/oauth2/authorize", params=self.asks(**changes))

    async def submit(self, form: Form, headers: dict[str, str] | None = None, **typed: str) -> httpx.Response:
        data = {**form.fields, **typed}
        return await self.network.identity.http.post(form.action, data=data, headers=headers)

    async def log_in(self, login: str, password: str, **changes: str | None) -> httpx.Response:
        form = Page(await self.open(**changes)).forms[0]
        return await self.submit(form, login=login, password=password)

    async def code(self, login: str, password: str, **changes: str | None) -> str:
        return answer_to_app(await self.log_in(login, password, **changes))["code"]

    async def ask(self, grant_type: str, **form: str) -> httpx.Response:
        data = {"grant_type": grant_type, "client_id": self.client_id, **form}
        if self.secret is not None:
            data["client_secret"] = self.secret
        return await self.network.identity.http.post("/oauth2/token", data=data)

    async def redeem(self, code: str, **changes: str) -> httpx.Response:
        form = {"code": code, "redirect_uri": self.redirect_uri, "code_verifier": self.verifier, **changes}
        return await self.ask("authorization_code", **form)

    async def tokens(self, login: str, password: str, **changes: str | None) -> dict[str, Any]:
        answer = await self.redeem(await self.code(login, password, **changes))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def refresh(self, refresh_token: str, **form: str) -> httpx.Response:
        return await self.ask("refresh_token", refresh_token=refresh_token, **form)


def answer_to_app(answer: httpx.Response) -> dict[str, str]:
    """Return what the app is told by a redirect to it."""
    assert answer.status_code == 303, answer.text
    query = parse_qs(urlsplit(answer.headers["Location"]).query, strict_parsing=True)
    return {name: values[0] for name, values in query.items()}
