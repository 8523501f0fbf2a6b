"""`/v1/ops/...`: every installed service answers for itself; here the answers become one.

A service that can't be reached is named, never left out in silence: an operator must not take a part
for the whole.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from clinic_shared.errors import DomainError
from multidict import CIMultiDict
from starlette.responses import Response

from clinic_gateway.errors import NotInstalledError, UnknownPathError
from clinic_gateway.routes import OPERATIONS_PREFIX, Credentials, Route
from clinic_gateway.upstream import Upstreams

FAN_OUT_TIMEOUT_SECONDS = 5
MERGED_PAGES = frozenset(("ledger", "events", "messages", "dead-letters", "event-flow", "summary"))
TIME_MEMBERS = ("recorded_at", "time", "parked_at", "held_at", "created_at", "occurred_at")
OK, FORBIDDEN = 200, 403


@dataclass(frozen=True)
class Part:
    """What one service answered; `status` is None when it didn't."""

    service: str
    status: int | None
    document: Any = None
    reason: str = ""


def is_operations_path(path: str) -> bool:
    return path == OPERATIONS_PREFIX or path.startswith(OPERATIONS_PREFIX + "/")


def route_to_one(path: str, upstreams: Upstreams) -> Route | None:
    """Return the route of `/v1/ops/{page}/{service}/...`, or None for a page that all services share.

    Raises UnknownPathError, NotInstalledError.
    """
    page, *rest = path.removeprefix(OPERATIONS_PREFIX).strip("/").split("/")
    if page not in MERGED_PAGES:
        raise UnknownPathError
    if not rest:
        return None
    service = rest[0]
    if service not in upstreams:
        raise NotInstalledError
    return Route(f"{OPERATIONS_PREFIX}/{page}/{service}", service, Credentials.TOKEN)


async def ask_all(upstreams: Upstreams, target: str, headers: CIMultiDict[str]) -> Response:
    parts = await asyncio.gather(*(_ask(upstreams, service, target, headers) for service in upstreams.urls))
    refusals = [part for part in parts if part.status == FORBIDDEN]
    if refusals and len(refusals) == len([part for part in parts if part.status is not None]):
        return _json(refusals[0].document, FORBIDDEN, "application/problem+json")
    return _json(merge(parts), OK)


async def _ask(upstreams: Upstreams, service: str, target: str, headers: CIMultiDict[str]) -> Part:
    try:
        async with upstreams.request(
            service, "GET", target, headers=headers, timeout_seconds=FAN_OUT_TIMEOUT_SECONDS
        ) as answer:
            return Part(service, answer.status, orjson.loads(await answer.read()))
    except DomainError as error:
        return Part(service, None, reason=error.slug)
    except orjson.JSONDecodeError:
        return Part(service, None, reason="not-json")


def merge(parts: Iterable[Part]) -> dict[str, Any]:
    """Join lists of items by time, newest first; keep everything else per service."""
    answered = {part.service: part.document for part in parts if part.status == OK}
    merged: dict[str, Any] = {"services": {name: _without_items(part) for name, part in answered.items()}}
    if any(_items(document) is not None for document in answered.values()):
        merged["items"] = merge_items(answered)
    merged["unreachable"] = [
        {"service": part.service, "reason": part.reason or f"answered {part.status}"}
        for part in parts
        if part.status != OK
    ]
    return merged


def merge_items(answered: Mapping[str, Any]) -> list[dict[str, Any]]:
    items = [
        {"service": service} | item
        for service, document in answered.items()
        for item in _items(document) or []
    ]
    return sorted(items, key=_time_of, reverse=True)


def _items(document: Any) -> list[dict[str, Any]] | None:
    items = document.get("items") if isinstance(document, dict) else document
    return items if isinstance(items, list) else None


def _without_items(document: Any) -> Any:
    if not isinstance(document, dict):
        return {}
    return {name: value for name, value in document.items() if name != "items"}


def _time_of(item: Mapping[str, Any]) -> str:
    return next((str(item[name]) for name in TIME_MEMBERS if item.get(name)), "")


def _json(document: Any, status: int, media_type: str = "application/json") -> Response:
    return Response(orjson.dumps(document), status, media_type=media_type)
