"""RabbitMQ's management API: the only way to set policies and to read back what is in effect."""

from collections.abc import Iterable
from typing import Any, Protocol, Self
from urllib.parse import quote, unquote, urlsplit

import httpx

TIMEOUT_SECONDS = 10


class NamedDocument(Protocol):
    """A policy, as the management API takes it."""

    @property
    def name(self) -> str: ...

    def document(self) -> dict[str, Any]: ...


class Management:
    """RabbitMQ's management API, for one virtual host."""

    def __init__(self, management_url: str, amqp_url: str) -> None:
        self.vhost = vhost_of(amqp_url)
        self._vhost = quote(self.vhost, safe="")
        self._client = httpx.AsyncClient(
            base_url=management_url.rstrip("/"),
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
            # Loading the certificate store takes longer than the request; plain HTTP needs none.
            verify=management_url.startswith("https:"),
        )

    async def put_policies(self, policies: Iterable[NamedDocument]) -> None:
        for policy in policies:
            path = f"/api/policies/{self._vhost}/{policy.name}"
            (await self._client.put(path, json=policy.document())).raise_for_status()

    async def list(self, kind: str) -> list[dict[str, Any]]:
        """Return all `exchanges`, `queues`, `bindings` or `policies` of the virtual host."""
        # Statistics lag by seconds, and a queue's policy with them; the bare records don't.
        path = f"/api/{kind}/{self._vhost}?disable_stats=true"
        answer = (await self._client.get(path)).raise_for_status()
        return list(answer.json())

    async def depths(self) -> dict[str, int]:
        """Return how many messages each queue of the virtual host holds, those in consumers' hands included."""
        path = f"/api/queues/{self._vhost}?columns=name,messages"
        answer = (await self._client.get(path)).raise_for_status()
        # A queue that was declared a moment ago has no statistics yet.
        return {row["name"]: row.get("messages", 0) for row in answer.json()}

    async def bindings_from(self, exchange: str) -> set[tuple[str, str]]:
        """Return (queue, routing key) of what an exchange routes now."""
        path = f"/api/exchanges/{self._vhost}/{exchange}/bindings/source"
        answer = (await self._client.get(path)).raise_for_status()
        return {(row["destination"], row["routing_key"]) for row in answer.json()}

    async def close(self) -> None:
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def vhost_of(amqp_url: str) -> str:
    return unquote(urlsplit(amqp_url.split(",", 1)[0]).path[1:]) or "/"
