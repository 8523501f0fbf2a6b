"""ATOL-Online-shaped registrar (v5, FFD 1.2): takes documents, registers them after they were asked for.

An `external_id` is registered once: sent again, it answers code 33 with the first reference, as ATOL does.
`/_control/atol/behaviour` makes it slow, fail documents, or lie about what it registered.
"""

import json
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from uuid import uuid4

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from clinic_local.fakes.customers import Document, status_of
from clinic_local.fakes.world import Vendor, World, hold_after, hold_before, token

VENDOR: Vendor = "atol"
_OPERATIONS = "sell|sell_refund|sell_correction|sell_refund_correction"
Answer = Callable[[Request, bytes], tuple[int, Document]]


class RegisterBehaviour(BaseModel):
    """What becomes of documents from now on."""

    waits: int = Field(default=0, ge=0, description="how often a report says `wait` before it is ready")
    fails: int = Field(default=0, ge=0, description="how many of the next documents the register fails")
    lie: bool = Field(default=False, description="report another total than was registered")


class Atol:
    def __init__(self, world: World) -> None:
        self._world = world
        self.reset()

    def reset(self) -> None:
        self.documents: dict[str, Document] = {}
        # A fiscal storage never gives a number twice, though this one forgets what it has given.
        self._numbers = count(int(time.time() % 100_000_000 * 10))
        self._of_external_id: dict[str, str] = {}
        self.behaviour = RegisterBehaviour()
        self._tokens: set[str] = set()

    def routes(self) -> list[Route]:
        return [
            Route("/possystem/v5/getToken", partial(self._answer, self._get_token), methods=["POST"]),
            Route("/possystem/v5/{group}/report/{uuid}", partial(self._answer, self._report)),
            Route(
                "/possystem/v5/{group}/{operation}", partial(self._answer, self._register), methods=["POST"]
            ),
            Route("/_control/atol/behaviour", self.set_behaviour, methods=["PUT"]),
            Route("/_control/atol/documents", self.list_documents),
        ]

    async def _answer(self, answer: Answer, request: Request) -> Response:
        fault = self._world.take_fault(VENDOR)
        await hold_before(fault)
        body = await request.body()
        if (status := status_of(fault)) is not None and fault is not None and not fault.after_accepting:
            return JSONResponse({"error": _error(1, "Refused.")}, status_code=status)
        code, document = answer(request, body)
        await hold_after(fault)
        if status is not None:
            return JSONResponse({"error": _error(1, "Lost.")}, status_code=status)
        return JSONResponse(document, status_code=code)

    def _get_token(self, _: Request, body: bytes) -> tuple[int, Document]:
        settings, asked = self._world.settings, json.loads(body)
        if (asked.get("login"), asked.get("pass")) != (settings.atol_login, settings.atol_password):
            return 401, {"error": _error(12, "Wrong login or password.")}
        made = token(32)
        self._tokens.add(made)
        return 200, {"error": None, "token": made, "timestamp": _now()}

    def _register(self, request: Request, body: bytes) -> tuple[int, Document]:
        if request.headers.get("token") not in self._tokens:
            return 401, {"error": _error(11, "The token has expired.")}
        operation, asked = request.path_params["operation"], json.loads(body)
        about = asked.get("correction" if operation.endswith("_correction") else "receipt")
        external_id = asked.get("external_id")
        if operation not in _OPERATIONS.split("|") or not isinstance(about, dict) or not external_id:
            return 400, {"error": _error(32, "The document doesn't fit the schema."), "status": "fail"}
        known = self._of_external_id.get(external_id)
        if known is not None:
            return 400, {"uuid": known, "error": _error(33, "Already there."), "status": "fail"}
        if _sum(about["items"]) != _sum(about["payments"]) or not about.get("client"):
            return 400, {"error": _error(32, "The sums differ."), "status": "fail"}
        reference = str(uuid4())
        self._of_external_id[external_id] = reference
        failed = self.behaviour.fails > 0
        self.behaviour.fails -= failed
        self.documents[reference] = {
            "uuid": reference,
            "external_id": external_id,
            "operation": operation,
            "about": about,
            "registered": not failed,
            "number": next(self._numbers),
            "waits": self.behaviour.waits,
        }
        return 200, {"uuid": reference, "status": "wait", "error": None, "timestamp": _now()}

    def _report(self, request: Request, _: bytes) -> tuple[int, Document]:
        document = self.documents.get(request.path_params["uuid"])
        if document is None:
            return 400, {"error": _error(34, "No such document."), "status": "fail", "payload": None}
        if (waits := int(str(document["waits"]))) > 0:
            document["waits"] = waits - 1
            return 200, {"uuid": document["uuid"], "status": "wait", "error": None, "payload": None}
        if not document["registered"]:
            error = _error(-3804, "The register is out of paper.")
            return 200, {"uuid": document["uuid"], "status": "fail", "error": error, "payload": None}
        return 200, {
            "uuid": document["uuid"],
            "status": "done",
            "error": None,
            "external_id": document["external_id"],
            "payload": self._payload(document),
        }

    def _payload(self, document: Document) -> Document:
        about, number = document["about"], int(str(document["number"]))
        total = about["total"] if isinstance(about, dict) else 0
        return {
            "total": total + 1 if self.behaviour.lie else total,
            "fns_site": "www.nalog.gov.ru",
            "fn_number": "9999000000000001",
            "shift_number": 1,
            "receipt_datetime": _now(),
            "fiscal_receipt_number": number,
            "fiscal_document_number": number,
            "ecr_registration_number": "0000000000000001",
            "fiscal_document_attribute": 4_000_000_000 + number,
        }

    async def set_behaviour(self, request: Request) -> Response:
        self.behaviour = RegisterBehaviour.model_validate_json(await request.body())
        return Response(status_code=204)

    async def list_documents(self, request: Request) -> Response:  # noqa: ARG002
        return JSONResponse({"items": list(self.documents.values())})


def _sum(rows: list[dict[str, float]]) -> int:
    return sum(round(row["sum"] * 100) for row in rows)


def _error(code: int, text: str) -> Document:
    return {"error_id": str(uuid4()), "code": code, "text": text, "type": "system"}


def _now() -> str:
    return time.strftime("%d.%m.%Y %H:%M:%S", time.gmtime(time.time() + 3 * 3600))
