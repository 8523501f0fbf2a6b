"""`/healthz`, `/readyz`, `/metrics`, `/version`: the gateway about itself and what it can reach."""

import asyncio
from importlib.metadata import version

from clinic_shared.errors import DomainError
from clinic_shared.health import Health
from clinic_shared.metrics import exposition
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from clinic_gateway.guards import Guards
from clinic_gateway.upstream import Upstreams

PROBE_SECONDS = 1.0


class Status:
    def __init__(self, upstreams: Upstreams, guards: Guards, health: Health) -> None:
        self._upstreams = upstreams
        self._guards = guards
        self._health = health

    def routes(self) -> list[Route]:
        return [
            Route("/healthz", self.health),
            Route("/readyz", self.readiness),
            Route("/metrics", self.metrics),
            Route("/version", self.version),
        ]

    async def health(self, request: Request) -> Response:  # noqa: ARG002
        return JSONResponse({"status": "ok"})

    async def readiness(self, request: Request) -> Response:  # noqa: ARG002
        """Ready while any service answers: one that is down must not take the only door with it."""
        names = list(self._upstreams.urls)
        states = dict(zip(names, await asyncio.gather(*map(self._probe, names)), strict=True))
        reasons = [f"{name}: {state}" for name, state in states.items() if state != "up"]
        reasons += [f"{loop}: {reason}" for loop, reason in self._health.reasons.items()]
        stopping = self._health.stopping.is_set()
        ready = "up" in states.values() and not stopping
        if stopping:
            reasons.append("this process is stopping")
        if not names:
            reasons += ["no service is installed (CLINIC_UPSTREAMS)"]
        circuits = self._guards.circuits()
        reasons += [f"{name}: its circuit is {state}" for name, state in circuits.items()]
        document = {
            "status": "ready" if ready else "not ready",
            "services": states,
            "circuits": circuits,
            "reasons": reasons,
        }
        return JSONResponse(document, 200 if ready else 503)

    async def _probe(self, service: str) -> str:
        try:
            async with self._upstreams.request(
                service, "GET", "/healthz", timeout_seconds=PROBE_SECONDS
            ) as answer:
                return "up" if answer.ok else f"answered {answer.status}"
        except DomainError as error:
            return error.slug

    async def metrics(self, request: Request) -> Response:  # noqa: ARG002
        body, media_type = exposition()
        return Response(body, headers={"content-type": media_type})

    async def version(self, request: Request) -> Response:  # noqa: ARG002
        return JSONResponse({"name": "clinic-gateway", "version": version("clinic-gateway")})
