"""Who may call what: asked of every route, so that a new one can't be forgotten."""

import re
from typing import Any

from clinic_identity.app import service
from clinic_shared import contracts
from clinic_shared.ids import uuid7
from clinic_shared.routing import PUBLIC, ClinicRoute
from clinic_shared.testing import ServiceHarness

ROUTES = [route for router in service.routers for route in router.routes]
PUBLIC_PATHS = {
    "/v1/auth/login",
    "/internal/revocations",
    "/v1/auth/refresh",
    "/v1/auth/unlock",
    "/v1/auth/mfa/totp",
    "/v1/auth/mfa/recovery-code",
    "/v1/auth/mfa/sms",
    "/v1/auth/mfa/sms/send",
    "/v1/auth/mfa/passkey",
    "/v1/auth/mfa/passkey/options",
    "/v1/auth/access-links",
    "/v1/auth/access-links/accept",
    "/welcome",
    "/oauth2/token",
    "/v1/browser/login",
    "/v1/browser/mfa",
    "/v1/browser/sso/start",
    "/v1/browser/sso/callback",
    "/internal/browser-sessions/token",
    "/oauth2/authorize",
    "/oauth2/introspect",
    "/oauth2/revoke",
    "/.well-known/jwks.json",
    "/.well-known/openid-configuration",
    "/.well-known/smart-configuration",
    "/fhir/R4/.well-known/smart-configuration",
}


async def call(identity: ServiceHarness, route: ClinicRoute, headers: dict[str, str]) -> Any:
    method = min(route.methods or ())
    path = re.sub(r"{\w+}", str(uuid7()), route.path)
    return await identity.http.request(method, path, json={}, headers=headers)


def test_what_needs_no_token_is_on_this_list() -> None:
    assert {route.path for route in ROUTES if route.permission is PUBLIC} == PUBLIC_PATHS


def test_every_scope_that_a_route_asks_for_is_granted_by_some_role() -> None:
    granted = {scope for scopes in contracts.scopes_by_role().values() for scope in scopes}
    assert {route.permission for route in ROUTES if isinstance(route.permission, str)} <= granted


async def test_without_a_token_nobody_gets_in(identity: ServiceHarness) -> None:
    closed = [route for route in ROUTES if route.permission is not PUBLIC]
    answers = {route.operation_id: (await call(identity, route, {})).status_code for route in closed}
    assert answers == dict.fromkeys(answers, 401)


async def test_without_its_scope_every_route_says_no(identity: ServiceHarness) -> None:
    scoped = [route for route in ROUTES if isinstance(route.permission, str)]
    answers = {}
    for route in scoped:
        others = contracts.load().scopes() - {route.permission}
        caller = identity.principal("system-administrator", scopes=others)
        answers[route.operation_id] = (await call(identity, route, identity.headers(caller))).status_code
    assert answers == dict.fromkeys(answers, 403)
