"""The code to run: of each service in `contracts/subscriptions.yaml` that is chosen and here, its `app.service`."""

import importlib
import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clinic_shared import contracts
from clinic_shared.service import Service

from clinic_local import modules
from clinic_local.errors import SetupError

# What a server imports only when it starts, thus once per fork if it weren't here already.
_IMPORTED_LATE = (
    "anyio._backends._asyncio",
    "anyio._core._resources",
    "anyio._core._sockets",
    "anyio._core._streams",
    "certifi",
    "encodings.idna",
    "fastapi.telemetry._runtime",
    "httpcore",
    "httptools",
    "httpx",
    "importlib.resources.readers",
    "stringprep",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.auto",
)


@dataclass(frozen=True)
class Code:
    """Everything that is imported once and forked many times."""

    services: dict[str, Service]
    gateway: Callable[[Mapping[str, str]], None] | None
    fakes: Callable[[Mapping[str, str]], None] | None


def load(errors: Path) -> Code:
    """Import all services, the gateway and the fakes. `errors` takes the traceback of one that can't be."""
    wanted = modules.chosen(os.environ)
    for module in _IMPORTED_LATE:
        if _exists(module):
            importlib.import_module(module)
    services = {}
    for name, entry in contracts.load().services.items():
        package = entry.package
        if name in wanted and _exists(f"{package}.app"):
            services[name] = _attribute(f"{package}.app", "service", errors)
    return Code(
        services=services,
        gateway=_attribute("clinic_gateway.app", "main", errors) if _exists("clinic_gateway.app") else None,
        fakes=_attribute("clinic_local.fakes.app", "main", errors),
    )


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _attribute(module: str, name: str, errors: Path) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:
        errors.write_text(traceback.format_exc())
        raise SetupError(
            module.split(".", maxsplit=1)[0],
            f"its code can't be loaded: {type(error).__name__}",
            "Correct the code, then try: make up",
            log=errors,
        ) from error
