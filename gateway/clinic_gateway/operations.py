"""`/v1/ops/...`: every installed service answers for itself; here the answers become one.

A service that can't be reached is named, never left out in silence: an operator must not take a part
for the whole.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from clinic_shared import contracts
from clinic_shared.errors import DomainError
from multidict import CIMultiDict
from starlette.responses import Response

from clinic_gateway import event_flow
from clinic_gateway.errors import NotInstalledError, UnknownPathError
from clinic_gateway.exchange import Exchange
from clinic_gateway.routes import OPERATIONS_PREFIX, Route
from clinic_gateway.upstream import Upstreams

FAN_OUT_TIMEOUT_SECONDS = 5
ExchangeFor = Callable[..., None]
"""Puts a service's own token into the headers: `TokenExchange.apply` for one caller."""
SHARED_PAGES = frozenset(
    (
        "ledger",
        "events",
        "messages",
        "deliveries",
        "dead-letters",
        "event-flow",
        "summary",
        "replays",
        "rebuilds",
        "partitions",
    )
)
EVENT_FLOW = f"{OPERATIONS_PREFIX}/event-flow"
PAGES = SHARED_PAGES | {"intake"}
TIME_MEMBERS = (
    "recorded_at",
    "first_failed_at",
    "first_seen_at",
    "requested_at",
    "received_at",
    "last_received_at",
    "day",
)
OK = 200
CALLERS_FAULT = {400, 403, 422}


@dataclass(frozen=True)
class Part:
    """What one service answered; `status` is None when it didn't."""

    service: str
    status: int | None
    document: Any = None
    reason: str = ""


def is_operations_path(path: str) -> bool:
    return path == OPERATIONS_PREFIX or path.startswith(OPERATIONS_PREFIX + "/")


@dataclass(frozen=True)
class OneService:
    """`/v1/ops/{page}/{service}/...`: what that service itself calls `/v1/ops/{page}/...`."""

    route: Route
    target: str


def one_service(exchange: Exchange, upstreams: Upstreams) -> OneService | None:
    """Return whom a request is for, or None for a page that all services share.

    Raises UnknownPathError, NotInstalledError.
    """
    page, *rest = exchange.path.removeprefix(OPERATIONS_PREFIX).strip("/").split("/")
    if page not in PAGES or (page not in SHARED_PAGES and not rest):
        raise UnknownPathError
    if not rest:
        return None
    service = rest[0]
    if service not in upstreams:
        raise NotInstalledError("The path names a service that isn't installed.")
    shared, prefix = f"{OPERATIONS_PREFIX}/{page}", f"{OPERATIONS_PREFIX}/{page}/{service}"
    if not exchange.target.startswith(prefix):
        raise UnknownPathError
    return OneService(Route(prefix, service), shared + exchange.target.removeprefix(prefix))


async def ask_all(
    upstreams: Upstreams, target: str, headers: CIMultiDict[str], exchange_for: ExchangeFor
) -> Response:
    """Ask every service, each with a token of its own in place of the caller's."""

    def headers_for(service: str) -> CIMultiDict[str]:
        own = CIMultiDict(headers)
        exchange_for(own, service=service)
        return own

    asking = (_ask(upstreams, service, target, headers_for(service)) for service in upstreams.urls)
    parts = await asyncio.gather(*asking)
    refusal = _refusal_of_all(parts)
    if refusal is not None:
        return refusal
    if target.partition("?")[0] == EVENT_FLOW:
        flow = event_flow.join(*_told(parts), contracts.load())
        return Response(flow.model_dump_json(), OK, media_type="application/json")
    return _json(merge(parts), OK)


def _refusal_of_all(parts: Sequence[Part]) -> Response | None:
    """Return the answer of one, where all who answered say the same: that the caller has to mend something."""
    answered = {part.status: part.document for part in parts if part.status is not None}
    if len(answered) != 1:
        return None
    [(status, document)] = answered.items()
    return _json(document, status, "application/problem+json") if status in CALLERS_FAULT else None


def _told(parts: Sequence[Part]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return who answered what, and why the others didn't."""
    answered = {part.service: part.document for part in parts if part.status == OK}
    silent = {p.service: p.reason or f"answered {p.status}" for p in parts if p.status != OK}
    return answered, silent


async def _ask(upstreams: Upstreams, service: str, target: str, headers: CIMultiDict[str]) -> Part:
    try:
        async with upstreams.request(
            service, "GET", target, headers=headers, timeout_seconds=FAN_OUT_TIMEOUT_SECONDS
        ) as answer:
            document = orjson.loads(await answer.read())
    except DomainError as error:
        return Part(service, None, reason=error.slug)
    except orjson.JSONDecodeError:
        return Part(service, None, reason="not-json")
    if not isinstance(document, dict):
        return Part(service, None, reason="not-an-object")
    return Part(service, answer.status, document)


def merge(parts: Sequence[Part]) -> dict[str, Any]:
    """Join the lists of all answers, oldest first, each member with its service; the rest stays apart."""
    answered, silent = _told(parts)
    names = sorted({name for document in answered.values() for name in _lists(document)})
    merged: dict[str, Any] = {name: _joined(name, answered) for name in names}
    merged["services"] = {
        service: {name: value for name, value in document.items() if name not in names}
        for service, document in answered.items()
    }
    merged["unreachable"] = [{"service": name, "reason": reason} for name, reason in silent.items()]
    return merged


def _joined(name: str, answered: Mapping[str, Any]) -> list[dict[str, Any]]:
    members = [
        {"service": service} | member
        for service, document in answered.items()
        for member in _lists(document).get(name, [])
    ]
    return sorted(members, key=_time_of)


def _lists(document: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    return {
        name: value
        for name, value in document.items()
        if isinstance(value, list) and all(isinstance(member, dict) for member in value)
    }


def _time_of(member: Mapping[str, Any]) -> str:
    return next((str(member[name]) for name in TIME_MEMBERS if member.get(name)), "")


def _json(document: Any, status: int, media_type: str = "application/json") -> Response:
    return Response(orjson.dumps(document), status, media_type=media_type)
