"""The HTTP side of a service, made of its routers: middleware, problems, health, API description."""

import asyncio
import importlib
import importlib.util
import json
import os
import platform
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from clinic_shared import contracts, event_flow, openapi, ops, ops_events, ops_replay, problems
from clinic_shared.dead_letters import api as dead_letters_api
from clinic_shared.errors import NotFoundError
from clinic_shared.inbound import api as inbound_api
from clinic_shared.metrics import exposition
from clinic_shared.middleware import PROBES, EdgeMiddleware
from clinic_shared.readiness import Readiness, WorkerReadiness
from clinic_shared.routing import ClinicRoute
from clinic_shared.service import Runtime, Service

VERSION = version("clinic-shared")
OPERATIONAL_PATHS = PROBES | {"/problems/{slug}"}
"""The only paths without a declared permission; they tell nothing about anybody."""


def create_app(service: Service, runtime: Runtime | None = None) -> FastAPI:
    """Make a service's application. Without a runtime it can only describe itself."""
    app = FastAPI(
        title=f"Polyclinic {service.name}",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        # Its spans and log records would carry query strings and exception messages.
        telemetry={"logs": False, "operation_spans": False},
        middleware=[Middleware(EdgeMiddleware, service=service.name)],
        lifespan=_lifespan,
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.runtime = runtime
    app.state.readiness = Readiness(runtime) if runtime else None
    problems.install(app)
    # Appended as they are: `include_router` would match every request twice.
    shared = (
        ops.router,
        ops_events.router,
        ops_replay.router,
        event_flow.router,
        dead_letters_api.router,
        inbound_api.router,
    )
    for router in (*service.routers, *shared):
        app.router.routes.extend(router.routes)
    app.router.routes.extend(_probes())
    app.router.routes.append(Route("/problems/{slug}", _problem, include_in_schema=False))
    package = service.package_dir.name
    app.openapi = lru_cache(maxsize=1)(partial(openapi.describe, app, package=package))  # type: ignore[method-assign]  # FastAPI's way to extend it
    return app


def worker_app(runtime: Runtime) -> Starlette:
    """Make what a worker answers: probes and metrics, for whoever watches it; nobody else asks it anything."""
    app = Starlette(routes=_probes())
    app.state.service = runtime.service
    app.state.readiness = WorkerReadiness(runtime)
    return app


def _probes() -> list[Route]:
    endpoints = (
        ("/healthz", _healthz),
        ("/readyz", _readyz),
        ("/metrics", _metrics),
        ("/version", _version),
    )
    return [Route(path, endpoint, include_in_schema=False) for path, endpoint in endpoints]


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    warming = asyncio.create_task(app.state.readiness.warm_up())
    yield
    warming.cancel()


def undeclared_routes(app: FastAPI) -> list[str]:
    """Return the paths that anybody could call because nobody declared who may. Must be empty."""
    return [
        path
        for route in app.routes
        if not isinstance(route, ClinicRoute)
        and (path := getattr(route, "path", str(route))) not in OPERATIONAL_PATHS
    ]


async def _healthz(_: Request) -> Response:
    """The process answers; nothing else is asked, so that an outage elsewhere restarts nobody."""
    return JSONResponse({"status": "ok"})


async def _readyz(request: Request) -> Response:
    report = await request.app.state.readiness.report()
    return JSONResponse(report.as_document(), status_code=200 if report.ready else 503)


async def _metrics(_: Request) -> Response:
    content, media_type = exposition()
    return Response(content, headers={"content-type": media_type})


async def _version(request: Request) -> Response:
    return JSONResponse(
        {
            "service": request.app.state.service.name,
            "version": VERSION,
            "release": os.environ.get("CLINIC_RELEASE", "unreleased"),
            "python": platform.python_version(),
        }
    )


async def _problem(request: Request) -> Response:
    """What stands behind a problem's `type`."""
    page = problems.problem_pages().get(request.path_params["slug"])
    if page is None:
        raise NotFoundError
    text = f"{page.title} (HTTP status {page.status})\n\n{page.cause}\n\n{page.fix}".strip()
    return PlainTextResponse(text + "\n", headers={"Cache-Control": "max-age=3600"})


def _is_installed(package: str) -> bool:
    found = importlib.util.find_spec(package) is not None
    return found and importlib.util.find_spec(f"{package}.app") is not None


def openapi_files() -> Iterator[tuple[Path, str]]:
    """Yield path and content of `contracts/openapi/<service>.json` for every service installed here."""
    known = contracts.load()
    for entry in known.services.values():
        if _is_installed(entry.package):
            service: Service = importlib.import_module(f"{entry.package}.app").service
            text = json.dumps(create_app(service).openapi(), indent=2, sort_keys=True, ensure_ascii=False)
            yield known.folder / "openapi" / f"{entry.name}.json", text + "\n"


if __name__ == "__main__":
    if sys.argv[1:] != ["openapi"]:
        sys.exit("usage: python -m clinic_shared.app openapi")
    for path, text in openapi_files():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
