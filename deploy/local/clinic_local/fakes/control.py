"""`/_control/...`: see what arrived, decide what goes wrong next, start afresh."""

from collections.abc import Callable

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from clinic_local.fakes.world import Behaviour, Fault, World

INBOX_LIMIT = 500


class Control:
    def __init__(self, world: World, resets: list[Callable[[], None]]) -> None:
        self._world = world
        self._resets = resets

    def routes(self) -> list[Route]:
        return [
            Route("/_control/inbox", self.inbox),
            Route("/_control/deliveries", self.deliveries),
            Route("/_control/faults", self.add_fault, methods=["POST"]),
            Route("/_control/faults", self.clear_faults, methods=["DELETE"]),
            Route("/_control/behaviour", self.set_behaviour, methods=["PUT"]),
            Route("/_control/reset", self.reset, methods=["POST"]),
            Route("/healthz", self.health),
        ]

    async def inbox(self, request: Request) -> Response:
        """List received messages, newest first; `channel` and `to` narrow it, `limit` and `offset` page."""
        query = request.query_params
        wanted = {name: query[name] for name in ("channel", "to") if name in query}
        limit = min(int(query.get("limit", "100")), INBOX_LIMIT)
        items = [
            message.model_dump(mode="json")
            for message in reversed(self._world.inbox)
            if all(getattr(message, name) == value for name, value in wanted.items())
        ]
        offset = int(query.get("offset", "0"))
        return JSONResponse({"items": items[offset : offset + limit], "total": len(items)})

    async def deliveries(self, request: Request) -> Response:  # noqa: ARG002
        callbacks = self._world.callbacks
        return JSONResponse({"pending": callbacks.pending, "items": callbacks.describe()})

    async def add_fault(self, request: Request) -> Response:
        self._world.faults.append(Fault.model_validate_json(await request.body()))
        return Response(status_code=204)

    async def clear_faults(self, request: Request) -> Response:  # noqa: ARG002
        self._world.faults.clear()
        return Response(status_code=204)

    async def set_behaviour(self, request: Request) -> Response:
        self._world.behaviour = Behaviour.model_validate_json(await request.body())
        return Response(status_code=204)

    async def reset(self, request: Request) -> Response:  # noqa: ARG002
        self._world.reset()
        for reset in self._resets:
            reset()
        return Response(status_code=204)

    async def health(self, request: Request) -> Response:  # noqa: ARG002
        return JSONResponse({"status": "ok"})


async def refuse_invalid(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """Answer a control request that can't be understood; the vendors' own routes never raise this."""
    if not isinstance(error, ValidationError):
        raise error
    return JSONResponse({"errors": error.errors(include_url=False, include_input=False)}, status_code=422)
