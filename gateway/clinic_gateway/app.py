"""Composition of the gateway: an ASGI application around the proxy, and the process that serves it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import lru_cache, partial
from uuid import UUID

import structlog
import uvloop
from clinic_shared import tracing
from clinic_shared.auth import RemoteKeys, StaticKeys, TokenVerifier
from clinic_shared.errors import DomainError, ForbiddenError, UnauthenticatedError
from clinic_shared.health import Health
from clinic_shared.http_server import Listening, serve_http, stop_on_signals
from clinic_shared.metrics import HTTP_REQUEST_SECONDS, HTTP_REQUESTS
from clinic_shared.principal import Principal
from clinic_shared.problems import domain_problem, unexpected_problem
from clinic_shared.reloading import follow_secrets
from clinic_shared.telemetry import configure_logging
from clinic_shared.tls import OwnCertificate
from joserfc.jwk import ECKey
from prometheus_client import Counter, Histogram
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from clinic_gateway import operations, stream
from clinic_gateway.browser import READ_ONLY, BrowserSessions, cookie_of, require_own_page
from clinic_gateway.client_certificates import ClientCertificates
from clinic_gateway.errors import UnknownPathError
from clinic_gateway.exchange import Exchange
from clinic_gateway.guards import Guards
from clinic_gateway.openapi import ApiDescription
from clinic_gateway.pages import Pages
from clinic_gateway.proxy import Proxy, request_headers
from clinic_gateway.rates import RateLimits
from clinic_gateway.revocation_feed import revocation_feed
from clinic_gateway.revocation_view import RevocationView
from clinic_gateway.routes import BROWSER_PREFIX, OPERATIONS_PREFIX, Credentials, Route, RouteTable
from clinic_gateway.settings import GatewaySettings
from clinic_gateway.status import Status
from clinic_gateway.token_exchange import TokenExchange, read_key
from clinic_gateway.tokens import Revocations, TokenCheck, Verifier
from clinic_gateway.upstream import Upstreams

log = structlog.get_logger()

SERVICE = "gateway"
SERVER_ERROR = 500
"""HTTP statuses from here on are ours to look into."""
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
"""Others are counted as one: labels come from closed sets."""
OWN_PATHS = "(own)"


class Gateway:
    """The order of refusals: malformed, too many from an address, unknown, unauthenticated, too many
    from an account, too large or of the wrong type. What passes goes to its service.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        verifier: Verifier,
        revocations: Revocations,
        *,
        reread: Callable[[], GatewaySettings],
    ) -> None:
        self._settings = settings
        self._reread = reread
        self._table = RouteTable()
        self._tokens = TokenCheck(verifier, revocations)
        self._revocations = revocations
        self._certificates = ClientCertificates(settings.certificate_proxy_networks)
        self.health = Health()
        self._upstreams = Upstreams(settings)
        self._guards = Guards(self._upstreams.urls, load_shedding=settings.load_shedding)
        self._exchange = TokenExchange(_exchange_key(settings))
        self._browsers = BrowserSessions(self._upstreams)
        self._proxy = Proxy(self._upstreams, self._guards, settings, self._exchange)
        self._view = RevocationView(self._upstreams, revocations, self.health)
        self._stream = stream.Stream(settings, revocations, self.health)
        self._own = self._own_pages()
        self._rates = RateLimits(settings)

    def _own_pages(self) -> Starlette:
        description = ApiDescription(
            self._upstreams, self._settings.contracts_dir, self._table, self._settings.url
        )
        pages = Pages(
            description,
            self._upstreams,
            contracts_dir=self._settings.contracts_dir,
            url=self._settings.url,
        )

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001
            with tracing.exporting(SERVICE):
                self._upstreams.open()
                async with self._listening():
                    yield
                await self._upstreams.close()

        return Starlette(
            routes=[*Status(self._upstreams, self._guards, self.health).routes(), *pages.routes()],
            exception_handlers={DomainError: _refuse, HTTPException: _refuse},
            lifespan=lifespan,
        )

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        # Before the first request: what ended while nobody was here is known from the start.
        await self._view.pull()
        stop = asyncio.Event()
        asking = asyncio.create_task(self._view.run(stop))
        try:
            async with self._feeding(stop):
                yield
        finally:
            stop.set()
            await asking

    @asynccontextmanager
    async def _feeding(self, stop: asyncio.Event) -> AsyncIterator[None]:
        if self._settings.amqp_url is None:
            yield
            return
        amqp_url = self._settings.amqp_url.get_secret_value()
        feeds = (
            revocation_feed(amqp_url, self._revocations, self.health, opened=self._view.begin_to_listen),
            self._stream.feed(amqp_url, self.health),
        )

        def take() -> None:
            settings = self._reread()
            self._exchange.use(_exchange_key(settings))
            told = settings.amqp_url
            if told is not None:
                for feed in feeds:
                    feed.use(told.get_secret_value())

        following = follow_secrets(self._settings.secrets_dir, take, self.health, stop)
        listening = [asyncio.create_task(work) for work in (following, *(feed.run(stop) for feed in feeds))]
        yield
        stop.set()
        await asyncio.gather(*listening)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer(Exchange(scope, receive, send))
        elif scope["type"] == "lifespan":
            await self._own(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, exchange: Exchange) -> None:
        route = self._table.match(exchange.path)
        label = _label(exchange, route)
        with exchange.identify(traced=label != OWN_PATHS) as span:
            try:
                await self._handle(exchange, route)
            except DomainError as error:
                if exchange.status:
                    log.warning("answer_cut_off", route=label, reason=error.slug)
                else:
                    await exchange.refuse(error)
            except Exception as error:  # noqa: BLE001  # the 500 handler: logged and counted inside
                span.failed(error)
                if not exchange.status:
                    await exchange.respond(unexpected_problem(exchange.scope, error))
            span.answered(_method(exchange), label, exchange.status)
        self._record(exchange, label)

    async def _handle(self, exchange: Exchange, route: Route | None) -> None:
        exchange.read_headers()
        address = self._address_of(exchange)
        self._rates.count_address(exchange, address)
        if route is None and operations.is_operations_path(exchange.path):
            await self._operate(exchange, address)
        elif exchange.path == stream.PATH and exchange.method == "GET":
            await self._follow(exchange, address)
        elif route is None:
            await self._own(exchange.scope, exchange.receive, _observed(exchange))
        else:
            self._rates.count_route(exchange, route, address)
            caller = await self._authenticate(exchange, route.credentials, address)
            self._rates.count_caller(exchange, route, caller, address)
            if route.certificate:
                exchange.certificate = self._certificates.shown_by(exchange)
            await self._proxy.pass_on(exchange, route, address)

    async def _operate(self, exchange: Exchange, address: str) -> None:
        caller = await self._authenticate(exchange, Credentials.TOKEN, address)
        self._rates.count_caller(exchange, None, caller, address)
        one = operations.one_service(exchange, self._upstreams)
        if one is not None:
            await self._proxy.pass_on(exchange, one.route, address, target=one.target)
            return
        headers = request_headers(exchange, address)
        exchange_for = partial(self._exchange.apply, token=exchange.caller_token)
        answer = await operations.ask_all(self._upstreams, exchange.target, headers, exchange_for)
        await exchange.respond(answer)

    async def _follow(self, exchange: Exchange, address: str) -> None:
        principal, token = await self._caller(exchange, cookie_of(exchange), address)
        self._rates.count_caller(exchange, None, str(principal.subject), address)
        if not principal.may(stream.SCOPE):
            raise ForbiddenError("Your roles don't include this action.", permission=stream.SCOPE)
        await self._stream.answer(exchange, principal, token)

    async def _authenticate(self, exchange: Exchange, needed: Credentials, address: str) -> str | None:
        """Return who has proved to be calling; None where the service itself asks for the proof."""
        cookie = cookie_of(exchange)
        basic = needed is Credentials.TOKEN_OR_BASIC and _authorization(exchange)[0] == "basic"
        if needed is Credentials.PUBLIC or basic:
            if exchange.path.startswith(BROWSER_PREFIX) and exchange.method not in READ_ONLY:
                require_own_page(exchange)
            return None
        principal, exchange.caller_token = await self._caller(exchange, cookie, address)
        self._view.require_current(exchange.method)
        return str(principal.subject)

    async def _caller(self, exchange: Exchange, cookie: str | None, address: str) -> tuple[Principal, str]:
        if cookie is not None:
            return await self._browser(exchange, cookie, address)
        scheme, token = _authorization(exchange)
        if scheme != "bearer":
            raise UnauthenticatedError
        return await self._tokens.principal_of(token, shown=self._shown_by(exchange)), token

    def _shown_by(self, exchange: Exchange) -> Callable[[], bytes | None]:
        return partial(self._certificates.shown_by, exchange)

    async def _browser(self, exchange: Exchange, cookie: str, address: str) -> tuple[Principal, str]:
        token = await self._browsers.token_of(exchange, cookie, address)
        try:
            return await self._tokens.principal_of(token, shown=self._shown_by(exchange)), token
        except UnauthenticatedError:
            self._browsers.forget(cookie)
            raise

    def _address_of(self, exchange: Exchange) -> str:
        """Return the caller's address as the outermost trusted proxy saw it."""
        client = exchange.scope.get("client")
        address = client[0] if client else ""
        hops = self._settings.trusted_hops
        forwarded = exchange.headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")
        if hops and len(forwarded) >= hops:
            address = forwarded[-hops].strip()
        return address

    def _record(self, exchange: Exchange, route: str) -> None:
        method = _method(exchange)
        counted, timed = _metrics_of(route, method, exchange.status)
        counted.inc()
        timed.observe(exchange.seconds)
        # An unready gateway says so to its prober; that is no failed request.
        failed = exchange.status >= SERVER_ERROR and route != OWN_PATHS
        if failed or self._settings.access_log:
            log.log(
                logging.WARNING if failed else logging.INFO,
                "request",
                method=method,
                route=route,
                status=exchange.status,
                duration_ms=round(exchange.seconds * 1000, 2),
                request_id=UUID(exchange.request_id),
                traceparent=exchange.span.traceparent,
            )


@lru_cache(maxsize=4096)
def _metrics_of(route: str, method: str, status: int) -> tuple[Counter, Histogram]:
    """Look the labels up once: that takes longer than counting."""
    counted = HTTP_REQUESTS.labels(SERVICE, route, method, str(status))
    return counted, HTTP_REQUEST_SECONDS.labels(SERVICE, route, method)


def _observed(exchange: Exchange) -> Send:
    """Note the status of what the own pages answer, and put the request's id in."""

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            await exchange.start(message["status"], list(message["headers"]))  # type: ignore[call-overload,arg-type]
        else:
            await exchange.send(message)

    return send  # type: ignore[return-value]


async def _refuse(request: Request, error: Exception) -> Response:
    if not isinstance(error, DomainError):
        error = UnknownPathError()
    return domain_problem(request.scope, error)


def _authorization(exchange: Exchange) -> tuple[str, str]:
    """Return the scheme, in small letters, and the rest of the Authorization header."""
    scheme, _, value = exchange.headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return scheme.lower(), value.strip()


def _method(exchange: Exchange) -> str:
    return exchange.method if exchange.method in METHODS else "other"


def _label(exchange: Exchange, route: Route | None) -> str:
    if route is not None:
        return route.prefix
    if exchange.path == stream.PATH:
        return stream.PATH
    if operations.is_operations_path(exchange.path):
        return OPERATIONS_PREFIX
    return OWN_PATHS


def create_app(
    settings: GatewaySettings,
    *,
    verifier: Verifier | None = None,
    revocations: Revocations | None = None,
    reread: Callable[[], GatewaySettings] | None = None,
) -> Gateway:
    return Gateway(
        settings,
        _verifier(settings) if verifier is None else verifier,
        Revocations() if revocations is None else revocations,
        reread=reread or (lambda: settings),
    )


def _exchange_key(settings: GatewaySettings) -> ECKey | None:
    return read_key(settings.secrets_dir, production=settings.environment == "production")


def _verifier(settings: GatewaySettings) -> Verifier:
    url = settings.effective_jwks_url
    source = RemoteKeys(url, authority=settings.tls_authority_file) if url else StaticKeys({"keys": []})
    return TokenVerifier(source, issuer=settings.token_issuer, audience=settings.token_audience)


def certificate_of(settings: GatewaySettings) -> OwnCertificate | None:
    file, authorities = settings.tls_certificate_file, settings.client_authorities_file
    if file is None:
        return None
    return OwnCertificate(file, settings.tls_key_file, client_authority=authorities, optional=True)


def main(environ: Mapping[str, str]) -> None:
    settings = GatewaySettings.from_environ(environ)
    configure_logging(SERVICE, settings.log_level)
    log.info("service_starting", settings=settings.model_dump(mode="json"))
    with suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, partial(GatewaySettings.from_environ, dict(environ))))


async def _serve(settings: GatewaySettings, reread: Callable[[], GatewaySettings]) -> None:
    gateway, stop = create_app(settings, reread=reread), stop_on_signals()
    certificate = certificate_of(settings)
    listening = Listening(
        host=settings.http_host,
        port=settings.http_port,
        tls=certificate.context if certificate else None,
        drain_seconds=settings.drain_seconds,
        grace_seconds=settings.grace_seconds,
    )
    serving = serve_http(gateway, listening, stop=stop, health=gateway.health)
    if certificate is None:
        await serving
    else:
        await asyncio.gather(serving, certificate.follow(gateway.health, stop))
