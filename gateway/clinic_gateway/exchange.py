"""One request on its way through: what the gateway knows of it, and the answers it gives by itself.

Works on ASGI messages directly; request and response objects cost a third of the throughput.
"""

import math
import re
import time
from dataclasses import dataclass, field
from uuid import UUID

from clinic_shared import tracing
from clinic_shared.deadlines import DeadlineExceededError
from clinic_shared.errors import DomainError
from clinic_shared.ids import uuid7
from clinic_shared.problems import REQUEST_ID, domain_problem
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from clinic_gateway.errors import HeadersTooLargeError, MalformedRequestError, RequestTimeoutError
from clinic_gateway.limits import Standing

MAX_HEADER_BYTES = 32 * 1024
SINGLE_HEADERS = frozenset(
    (b"host", b"authorization", b"content-length", b"content-type", b"x-request-id", b"client-cert")
)
UUID_FORM = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
DANGEROUS_PATH = re.compile(r"//|\\|/\.{1,2}(?:/|$)|[\x00-\x1f\x7f]")
ANSWER_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


@dataclass(slots=True)
class Exchange:
    scope: Scope
    receive: Receive
    send: Send
    headers: dict[bytes, bytes] = field(default_factory=dict)
    request_id: str = ""
    span: tracing.Span = tracing.OFF
    started_at: float = field(default_factory=time.monotonic)
    caller_token: str | None = None
    """The bearer token that was verified; services get another one for it (`token_exchange.py`)."""
    certificate: bytes | None = None
    """That the caller has shown, in DER, where its service needs to know (`client_certificates.py`)."""
    deadline_at: float = math.inf
    """Of `time.monotonic`: when the caller gets 504 at the latest."""
    standing: Standing | None = None
    """With the rate limit that leaves the fewest requests."""
    status: int = 0
    """Of the answer, once its first byte is on the way."""

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    @property
    def path(self) -> str:
        return str(self.scope["path"])

    @property
    def target(self) -> str:
        """The path as it came, percent-encoded, with the query string. Never logged."""
        raw: bytes = self.scope.get("raw_path") or self.path.encode()
        query: bytes = self.scope["query_string"]
        return (raw + b"?" + query if query else raw).decode("latin-1")

    @property
    def content_length(self) -> int | None:
        value = self.headers.get(b"content-length")
        return int(value) if value is not None and value.isdigit() else None

    @property
    def has_body(self) -> bool:
        return b"transfer-encoding" in self.headers or bool(self.content_length)

    @property
    def seconds_left(self) -> float:
        """Raises DeadlineExceededError."""
        left = self.deadline_at - time.monotonic()
        if left <= 0:
            raise DeadlineExceededError
        return left

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started_at

    def identify(self, *, traced: bool) -> tracing.Span:
        """Take over the caller's request and trace ids where well-formed; they end up in logs."""
        given = dict(self.scope["headers"])
        request_id = given.get(b"x-request-id", b"")
        known = UUID_FORM.fullmatch(request_id)
        self.request_id = request_id.decode().lower() if known else str(uuid7())
        self.scope[REQUEST_ID] = self.request_id
        if traced:
            self.span = tracing.serving(
                given.get(b"traceparent", b"").decode("latin-1"),
                trace_id=UUID(self.request_id),
                ids={"clinic.request_id": self.request_id},
                trusted=False,
            )
        return self.span

    def stand(self, standing: Standing | None) -> None:
        """Take in where the caller stands with one more limit."""
        if standing is not None and (self.standing is None or standing.remaining < self.standing.remaining):
            self.standing = standing

    def read_headers(self) -> None:
        """Keep what the gateway looks at. Raises MalformedRequestError, HeadersTooLargeError."""
        size = 0
        for name, value in self.scope["headers"]:
            size += len(name) + len(value)
            if name in SINGLE_HEADERS and name in self.headers:
                raise MalformedRequestError("A header that may come once came twice.", header=name.decode())
            self.headers.setdefault(name, value)
        if size > MAX_HEADER_BYTES:
            raise HeadersTooLargeError(max_bytes=MAX_HEADER_BYTES)
        if b"host" not in self.headers:
            raise MalformedRequestError("The Host header is missing.")
        # A service may see another path than the one that was authorised here.
        if DANGEROUS_PATH.search(self.path):
            raise MalformedRequestError("The path has empty or dot segments or control characters.")

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        headers.append((b"x-request-id", self.request_id.encode()))
        if self.standing is not None:
            headers.extend(self.standing.headers())
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def finish(self, body: bytes) -> None:
        await self.send({"type": "http.response.body", "body": body})

    async def refuse(self, error: DomainError) -> None:
        """Answer with a problem document (RFC 9457), or with an OperationOutcome under `/fhir`."""
        answer = domain_problem(self.scope, error)
        if isinstance(error, RequestTimeoutError):
            # The rest of the body may still come, and would be taken for the next request.
            answer.headers["connection"] = "close"
        await self.respond(answer)

    async def respond(self, answer: Response) -> None:
        """Give an answer that was made here."""
        self.status = answer.status_code
        answer.headers["x-request-id"] = self.request_id
        for name, value in self.standing.headers() if self.standing else ():
            answer.headers[name.decode()] = value.decode()
        answer.headers.setdefault("cache-control", "no-store")
        for name, value in ANSWER_HEADERS:
            answer.headers[name.decode()] = value.decode()
        await answer(self.scope, self.receive, self.send)
