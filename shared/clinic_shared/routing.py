"""The way of a request through a service: caller, permission, body, one transaction, commit, answer.

No route exists without a declared permission. Everything, the commit included, happens before the first
byte of the answer leaves; whatever raises on the way rolls all of it back.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from contextvars import ContextVar
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, TypeVar, Unpack

from fastapi import Depends, Header, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.background import BackgroundTask

from clinic_shared import idempotency, limits
from clinic_shared.audit import Action, AuditEntry, Outcome
from clinic_shared.context import Context
from clinic_shared.crash import mutated
from clinic_shared.database import Transaction
from clinic_shared.deadlines import deadline_of, seconds_left
from clinic_shared.deprecation import Deprecation
from clinic_shared.errors import (
    ConcealedError,
    DomainError,
    ForbiddenError,
    PreconditionRequiredError,
    UnauthenticatedError,
)
from clinic_shared.etags import etag, parse_if_match
from clinic_shared.idempotency import Idempotency
from clinic_shared.limits import DEFAULT_MAX_BODY_BYTES, JSON_ONLY, CheckedRequest
from clinic_shared.metrics import IDEMPOTENT_REPLAYS, PERMISSION_DENIALS
from clinic_shared.middleware import correlation_of
from clinic_shared.paging import Page, PageQuery, PageRequest, page_of
from clinic_shared.principal import ANONYMOUS, Principal

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

__all__ = [
    "AUTHENTICATED",
    "PUBLIC",
    "Access",
    "Caller",
    "ClinicRoute",
    "ClinicRouter",
    "CurrentContext",
    "CurrentRuntime",
    "Idempotency",
    "IfMatch",
    "Page",
    "PageQuery",
    "PageRequest",
    "RawBody",
    "RequiredIfMatch",
    "Tx",
    "etag",
    "page_of",
]


class Access(Enum):
    """Permissions that aren't scopes."""

    PUBLIC = "public"
    AUTHENTICATED = "authenticated"


PUBLIC = Access.PUBLIC
"""Anybody, without a token: a login, a webhook with its own signature. The caller is ANONYMOUS."""
AUTHENTICATED = Access.AUTHENTICATED
"""Any verified caller, whatever their scopes."""

Permission = str | Access
Answer = Callable[[Request], Coroutine[Any, Any, Response]]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Awaitable[Any]])

_CONTEXT = "clinic.context"
_TRANSACTION = "clinic.transaction"
_METHODS_WITH_BODY = {"POST", "PUT", "PATCH", "DELETE"}
_version: ContextVar[int | None] = ContextVar("clinic_version", default=None)


class ClinicRoute(APIRoute):
    """One operation, with what must be declared of it before FastAPI sees it."""

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        permission: Permission,
        idempotency_mode: Idempotency,
        transactional: bool,
        max_body_bytes: int,
        media_types: tuple[str, ...],
        deprecation: Deprecation | None,
        **options: Any,
    ) -> None:
        self.permission = permission
        self.idempotency_mode = idempotency_mode
        self.transactional = transactional
        self.max_body_bytes = max_body_bytes
        self.media_types = media_types
        self.deprecation = deprecation
        super().__init__(
            path, _telling_version(endpoint), deprecated=deprecation is not None or None, **options
        )
        self._refuse_contradictions()

    @property
    def permission_name(self) -> str:
        return self.permission.value if isinstance(self.permission, Access) else self.permission

    def _refuse_contradictions(self) -> None:
        if not self.transactional and _depends_on(self.dependant, _transaction):
            raise TypeError(f"{self.name}: a route without a transaction can't ask for Tx")
        if self.idempotency_mode is Idempotency.NONE:
            return
        # Keys belong to a caller, and live and die with the transaction of the effect.
        if self.permission is PUBLIC or not self.transactional:
            raise TypeError(f"{self.name}: idempotency needs a caller and a transaction")

    def get_route_handler(self) -> Answer:
        answer = super().get_route_handler()

        async def handle(request: Request) -> Response:
            response = await self._handle(CheckedRequest(request.scope, request.receive), answer)
            if self.deprecation is not None:
                self.deprecation.tell(response, self._metric_name())
            return response

        return handle

    async def _handle(self, request: CheckedRequest, answer: Answer) -> Response:
        runtime: Runtime = request.app.state.runtime
        limits.check_url(request)
        principal = await self._authenticate(request, runtime)
        context = _context_of(request, principal)
        request.scope[_CONTEXT] = context
        try:
            self._require_permission(principal)
            return await self._answer(request, runtime, context, answer)
        except (ForbiddenError, ConcealedError) as refusal:
            await self._record_denial(runtime, context, refusal)
            raise

    async def _authenticate(self, request: Request, runtime: "Runtime") -> Principal:
        if self.permission is PUBLIC:
            return ANONYMOUS
        credentials = request.headers.getlist("authorization")
        scheme, _, token = credentials[0].partition(" ") if len(credentials) == 1 else ("", "", "")
        if scheme.lower() != "bearer":
            raise UnauthenticatedError("Send one access token as `Authorization: Bearer ...`.")
        return await runtime.verifier.verify(token.strip(" "))

    def _require_permission(self, principal: Principal) -> None:
        if isinstance(self.permission, str) and not principal.may(self.permission):
            raise ForbiddenError("Your roles don't include this action.", permission=self.permission)

    async def _answer(
        self, request: CheckedRequest, runtime: "Runtime", context: Context, answer: Answer
    ) -> Response:
        body = b""
        if request.method in _METHODS_WITH_BODY:
            # Before the transaction: a slow sender must not hold a connection to the database.
            body = await request.read(max_bytes=self.max_body_bytes, accepted=self.media_types)
        seconds_left(context.deadline)
        if not self.transactional:
            return await answer(request)
        key = idempotency.read_key(request, self.idempotency_mode)
        claim = None
        if key is not None:
            claim = idempotency.claim_of(
                request, principal=context.principal, route=self._metric_name(), key=key, body=body
            )
        async with AsyncExitStack() as stack:
            transaction = await stack.enter_async_context(runtime.database.transaction(context))
            request.scope[_TRANSACTION] = transaction
            response = await self._answer_once(request, transaction, claim, answer)
            if mutated("commit-after-response"):
                response.background = BackgroundTask(stack.pop_all().aclose)
        return response

    async def _answer_once(
        self,
        request: CheckedRequest,
        transaction: Transaction,
        claim: idempotency.Claim | None,
        answer: Answer,
    ) -> Response:
        if claim is None:
            return await self._with_etag(request, answer)
        replay = await idempotency.take(transaction, claim)
        if replay is not None:
            IDEMPOTENT_REPLAYS.labels(self._metric_name()).inc()
            return replay
        response = await self._with_etag(request, answer)
        await idempotency.keep(transaction, claim, response)
        return response

    async def _with_etag(self, request: Request, answer: Answer) -> Response:
        _version.set(None)
        response = await answer(request)
        version = _version.get()
        if version is not None and "etag" not in response.headers:
            response.headers["ETag"] = etag(version)
        return response

    def _metric_name(self) -> str:
        return f"{min(self.methods or ())} {self.path_format}"

    async def _record_denial(self, runtime: "Runtime", context: Context, refusal: DomainError) -> None:
        """Audit a refusal in a transaction of its own: that of the act was rolled back."""
        PERMISSION_DENIALS.labels(self._metric_name()).inc()
        concealed = refusal if isinstance(refusal, ConcealedError) else None
        async with runtime.database.transaction(context) as transaction:
            transaction.audit(
                AuditEntry(
                    action=Action.EXECUTE,
                    resource_type="Operation",
                    resource_id=self.operation_id,
                    patient_id=concealed.patient_id if concealed else None,
                    outcome=Outcome.DENIED,
                    reason="concealed" if concealed else refusal.slug,
                    details={
                        "permission": self.permission_name,
                        **(concealed.explanation if concealed else {}),
                    },
                )
            )


def _telling_version(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Let an endpoint whose answer is one resource with a `version` tell it, for the ETag."""
    model = inspect.signature(endpoint, eval_str=True).return_annotation
    if not (isinstance(model, type) and issubclass(model, BaseModel) and "version" in model.model_fields):
        return endpoint

    @functools.wraps(endpoint)
    async def tell(*arguments: Any, **options: Any) -> Any:
        resource = await endpoint(*arguments, **options)
        _version.set(resource.version)
        return resource

    return tell


def _depends_on(dependant: Any, call: Callable[..., Any]) -> bool:
    return dependant.call is call or any(_depends_on(child, call) for child in dependant.dependencies)


def _context_of(request: Request, principal: Principal) -> Context:
    correlation_id, traceparent = correlation_of(request.scope)
    return Context(
        principal=principal,
        correlation_id=correlation_id,
        traceparent=traceparent,
        deadline=deadline_of(request.scope),
    )


class RouteOptions(TypedDict, total=False):
    """What a route may declare besides its permission."""

    status_code: int
    operation_id: str
    """Stable name for clients; the endpoint's own name by default."""
    summary: str
    tags: list[str | Enum]
    idempotency: Idempotency
    """ACCEPTED for POST by default; never for public routes and those without a transaction."""
    transactional: bool
    """False for what does slow work or has its own transactions (password hashing, intake)."""
    max_body_bytes: int
    media_types: Sequence[str]
    responses: dict[int | str, dict[str, Any]]
    response_class: type[Response]
    response_model: Any
    include_in_schema: bool
    deprecation: Deprecation | None
    dependencies: Sequence[Any]
    """What is checked before the endpoint runs, such as RECENT_AUTHENTICATION (`step_up.py`)."""


class ClinicRouter:
    """Collects the operations of a service. A missing permission is a TypeError at import."""

    def __init__(self, *, prefix: str = "", tags: Sequence[str] = ()) -> None:
        self.prefix = prefix
        self.tags: list[str | Enum] = list(tags)
        self.routes: list[ClinicRoute] = []

    def get(
        self, path: str, *, permission: Permission, **options: Unpack[RouteOptions]
    ) -> Callable[[Endpoint], Endpoint]:
        return self._route("GET", path, permission, options)

    def post(
        self, path: str, *, permission: Permission, **options: Unpack[RouteOptions]
    ) -> Callable[[Endpoint], Endpoint]:
        return self._route("POST", path, permission, options)

    def put(
        self, path: str, *, permission: Permission, **options: Unpack[RouteOptions]
    ) -> Callable[[Endpoint], Endpoint]:
        return self._route("PUT", path, permission, options)

    def patch(
        self, path: str, *, permission: Permission, **options: Unpack[RouteOptions]
    ) -> Callable[[Endpoint], Endpoint]:
        return self._route("PATCH", path, permission, options)

    def delete(
        self, path: str, *, permission: Permission, **options: Unpack[RouteOptions]
    ) -> Callable[[Endpoint], Endpoint]:
        return self._route("DELETE", path, permission, options)

    def _route(
        self, method: str, path: str, permission: Permission, options: RouteOptions
    ) -> Callable[[Endpoint], Endpoint]:
        if not permission:
            raise TypeError(f"{method} {path}: declare a scope, PUBLIC or AUTHENTICATED")

        def register(endpoint: Endpoint) -> Endpoint:
            self.routes.append(self._make(method, path, permission, endpoint, dict(options)))
            return endpoint

        return register

    def _make(
        self,
        method: str,
        path: str,
        permission: Permission,
        endpoint: Callable[..., Any],
        options: dict[str, Any],
    ) -> ClinicRoute:
        transactional = options.pop("transactional", True)
        keyed = method == "POST" and permission is not PUBLIC and transactional
        mode = options.pop("idempotency", Idempotency.ACCEPTED if keyed else Idempotency.NONE)
        permission_name = permission.value if isinstance(permission, Access) else permission
        return ClinicRoute(
            self.prefix + path,
            endpoint,
            permission=permission,
            idempotency_mode=mode,
            transactional=transactional,
            max_body_bytes=options.pop("max_body_bytes", DEFAULT_MAX_BODY_BYTES),
            media_types=tuple(options.pop("media_types", JSON_ONLY)),
            methods=[method],
            operation_id=options.pop("operation_id", endpoint.__name__),
            tags=options.pop("tags", self.tags),
            deprecation=options.pop("deprecation", None),
            openapi_extra={"x-permission": permission_name, "x-idempotency": mode.value},
            **options,
        )


# The dependencies are coroutines, since FastAPI runs plain functions in a thread pool.


async def _transaction(request: Request) -> Transaction:
    transaction: Transaction = request.scope[_TRANSACTION]
    return transaction


async def _current_context(request: Request) -> Context:
    context: Context = request.scope[_CONTEXT]
    return context


async def _caller(request: Request) -> Principal:
    return (await _current_context(request)).principal


async def _runtime(request: Request) -> Any:
    return request.app.state.runtime


async def _raw_body(request: Request) -> bytes:
    return await request.body()


async def _if_match(if_match: Annotated[str | None, Header()] = None) -> int | None:
    return parse_if_match(if_match)


async def _required_if_match(if_match: Annotated[str | None, Header()] = None) -> int:
    version = parse_if_match(if_match)
    if version is None:
        raise PreconditionRequiredError
    return version


Tx = Annotated[Transaction, Depends(_transaction)]
"""The request's open transaction. The runtime commits it; an endpoint never does."""
Caller = Annotated[Principal, Depends(_caller)]
CurrentContext = Annotated[Context, Depends(_current_context)]
"""For routes that open their own transactions."""
RawBody = Annotated[bytes, Depends(_raw_body)]
"""The body's bytes as they came, for media types other than JSON and for signatures."""
IfMatch = Annotated[int | None, Depends(_if_match)]
"""The version in If-Match; None without a condition."""
RequiredIfMatch = Annotated[int, Depends(_required_if_match)]
if TYPE_CHECKING:
    CurrentRuntime = Annotated[Runtime, Depends(_runtime)]
else:
    # `service.py` imports this module, so the name can't exist here at run time.
    CurrentRuntime = Annotated[Any, Depends(_runtime)]
