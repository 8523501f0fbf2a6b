"""A laboratory that takes orders: HL7 v2 over HTTP and MLLP, FHIR ServiceRequest. It can be slow, refuse, repeat, die.

Of each order it remembers how often it came; one that comes again, with the same control id, is one order.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from clinic_local.fakes.world import World, hold_after, hold_before

_START, _END = b"\x0b", b"\x1c\r"
DIE, REPEAT, STRAY = "die", "repeat", "stray"
"""Codes of faults: hang up without an answer; answer twice; answer another message first (both MLLP only)."""


class Laboratory:
    def __init__(self, world: World) -> None:
        self._world = world
        self.reset()

    def reset(self) -> None:
        self.messages: list[str] = []
        self.taken: dict[str, int] = {}

    def routes(self) -> list[Route]:
        return [
            Route("/laboratory/hl7", self.take_hl7, methods=["POST"]),
            Route("/laboratory/fhir/ServiceRequest/{id}", self.take_fhir, methods=["PUT"]),
            Route("/_control/laboratory", self.show),
        ]

    async def show(self, request: Request) -> Response:  # noqa: ARG002
        """What came, and how often each message was taken."""
        return JSONResponse({"messages": self.messages, "taken": self.taken})

    async def take_hl7(self, request: Request) -> Response:
        answers = await self._answers(await request.body())
        if not answers:
            return Response(status_code=503)
        return Response(answers[-1], media_type="application/hl7-v2")

    async def take_fhir(self, request: Request) -> Response:
        fault = self._world.take_fault("laboratory")
        await hold_before(fault)
        if fault is not None and fault.status is not None and not fault.after_accepting:
            return JSONResponse({"resourceType": "OperationOutcome"}, status_code=fault.status)
        body = (await request.body()).decode()
        known = request.path_params["id"] in self.taken
        self._take(request.path_params["id"], body)
        await hold_after(fault)
        status = fault.status if fault is not None and fault.status is not None else 200 if known else 201
        return Response(body, status_code=status, media_type="application/fhir+json")

    @asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[int]:
        """Take orders over MLLP; yields the port."""
        server = await asyncio.start_server(self._attend, "127.0.0.1", port)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                block = await reader.readuntil(_END)
                answers = await self._answers(block.removeprefix(_START).removesuffix(_END))
                if not answers:
                    break
                for answer in answers:
                    writer.write(_START + answer + _END)
                await writer.drain()
        writer.close()

    async def _answers(self, payload: bytes) -> list[bytes]:
        """What this message is answered; nothing: the connection ends."""
        fault = self._world.take_fault("laboratory")
        code = fault.code if fault is not None else None
        await hold_before(fault)
        header = payload.decode().split("\r")[0].split("|")
        if fault is None or fault.after_accepting or code in {None, REPEAT, STRAY}:
            self._take(header[9], payload.decode())
        await hold_after(fault)
        if code == DIE:
            return []
        answer = _acknowledgement(header, "AA" if code in {None, REPEAT, STRAY} else str(code))
        if code == STRAY:
            return [_acknowledgement([*header[:9], "ANOTHER", *header[10:]], "AA"), answer]
        return [answer] * (2 if code == REPEAT else 1)

    def _take(self, key: str, message: str) -> None:
        self.messages.append(message)
        self.taken[key] = self.taken.get(key, 0) + 1


def _acknowledgement(header: list[str], code: str) -> bytes:
    """`AE-207` is AE with error code 207 (application internal error)."""
    code, _, error = code.partition("-")
    lines = [
        f"MSH|^~\\&|{header[4]}|{header[5]}|{header[2]}|{header[3]}|{header[6]}||ACK|A-{header[9]}|P|2.5.1",
        f"MSA|{code}|{header[9]}",
        *([f"ERR|||{error}|E"] if error else []),
    ]
    return "".join(f"{line}\r" for line in lines).encode()
