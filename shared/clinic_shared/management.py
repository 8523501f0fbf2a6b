"""RabbitMQ's management API: the only way to set policies and to read back what is in effect."""

import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import quote, unquote, urlsplit

import httpx

from clinic_shared import tls

if TYPE_CHECKING:
    from clinic_shared.service import Runtime
    from clinic_shared.settings import ServiceSettings

TIMEOUT_SECONDS = 10


class NamedDocument(Protocol):
    """A policy, as the management API takes it."""

    @property
    def name(self) -> str: ...

    def document(self) -> dict[str, Any]: ...


class Management:
    """RabbitMQ's management API, for one virtual host."""

    def __init__(self, management_url: str, amqp_url: str, *, authority: Path | None = None) -> None:
        self.vhost = vhost_of(amqp_url)
        self._vhost = quote(self.vhost, safe="")
        self._url = management_url.rstrip("/")
        # Loading the certificate store takes longer than the request; plain HTTP needs none.
        self._trust = tls.Trust(authority) if management_url.startswith("https:") else None
        self._clients: dict[ssl.SSLContext | None, httpx.AsyncClient] = {}

    @classmethod
    def from_settings(cls, settings: "ServiceSettings") -> Self | None:
        """Return the API that the settings name, or None where it isn't open to us."""
        url = settings.amqp_management_url
        if url is None:
            return None
        amqp_url = settings.amqp_url.get_secret_value()
        return cls(url.get_secret_value(), amqp_url, authority=settings.tls_authority_file)

    @classmethod
    def of(cls, runtime: "Runtime") -> Self | None:
        """Return the API for as long as the runtime lives: it follows changed settings."""
        management = cls.from_settings(runtime.settings)
        if management is not None:
            runtime.on_reload(management.use)
        return management

    def use(self, settings: "ServiceSettings") -> None:
        """Ask where other settings say from now on (a changed password)."""
        if settings.amqp_management_url is not None:
            self._url = settings.amqp_management_url.get_secret_value().rstrip("/")
            for client in self._clients.values():
                client.base_url = httpx.URL(self._url)

    @property
    def _http(self) -> httpx.AsyncClient:
        """One for each authority that was trusted: connections to whom nobody vouches for any more aren't used again."""
        context = self._trust.context if self._trust else None
        if context not in self._clients:
            self._clients[context] = httpx.AsyncClient(
                base_url=self._url, timeout=TIMEOUT_SECONDS, trust_env=False, verify=context or False
            )
        return self._clients[context]

    async def put_policies(self, policies: Iterable[NamedDocument]) -> None:
        for policy in policies:
            path = f"/api/policies/{self._vhost}/{policy.name}"
            (await self._http.put(path, json=policy.document())).raise_for_status()

    async def list(self, kind: str) -> list[dict[str, Any]]:
        """Return all `exchanges`, `queues`, `bindings` or `policies` of the virtual host."""
        # Statistics lag by seconds, and a queue's policy with them; the bare records don't.
        path = f"/api/{kind}/{self._vhost}?disable_stats=true"
        answer = (await self._http.get(path)).raise_for_status()
        return list(answer.json())

    async def depths(self) -> dict[str, int]:
        """Return how many messages each queue of the virtual host holds, those in consumers' hands included."""
        path = f"/api/queues/{self._vhost}?columns=name,messages"
        answer = (await self._http.get(path)).raise_for_status()
        # A queue that was declared a moment ago has no statistics yet.
        return {row["name"]: row.get("messages", 0) for row in answer.json()}

    async def bindings_from(self, exchange: str) -> set[tuple[str, str]]:
        """Return (queue, routing key) of what an exchange routes now."""
        path = f"/api/exchanges/{self._vhost}/{exchange}/bindings/source"
        answer = (await self._http.get(path)).raise_for_status()
        return {(row["destination"], row["routing_key"]) for row in answer.json()}

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def vhost_of(amqp_url: str) -> str:
    return unquote(urlsplit(amqp_url.split(",", 1)[0]).path[1:]) or "/"
