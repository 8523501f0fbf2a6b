import json
from pathlib import Path

import pytest
from clinic_gateway.routes import ROUTES, Body, Credentials, Route, RouteTable

TABLE = RouteTable()
CONTRACTS = Path(__file__).resolve().parents[2] / "contracts" / "openapi"
OWN = ("/healthz", "/readyz", "/metrics", "/version", "/docs", "/openapi.json", "/problems", "/v1/ops")


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("/v1/me", "identity"),
        ("/v1/auth/login", "identity"),
        ("/v1/auth/mfa/totp", "identity"),
        ("/oauth2/token", "identity"),
        ("/oauth2/authorize", "identity"),
        ("/.well-known/jwks.json", "identity"),
        ("/.well-known/openid-configuration", "identity"),
        ("/fhir/R4/.well-known/smart-configuration", "identity"),
        ("/.well-known/smart-configuration", "identity"),
        ("/v1/break-glass", "patients"),
        ("/v1/patients", "patients"),
        ("/v1/patients/1/timeline", "patients"),
        ("/v1/patients/1/documents/2", "patients"),
        ("/v1/patients/1/access-log", "audit"),
        ("/v1/slots", "scheduling"),
        ("/v1/appointments/1/cancel", "scheduling"),
        ("/v1/referrals/1", "referrals"),
        ("/v1/messages", "notifications"),
        ("/v1/dev/inbox", "notifications"),
        ("/v1/webhooks/messaging/whatsapp", "notifications"),
        ("/v1/webhooks/subscriptions", "notifications"),
        ("/v1/lab/messages", "lab-integration"),
        ("/v1/lab/messages/validate", "lab-integration"),
        ("/v1/lab/unmatched", "lab-integration"),
        ("/v1/invoices", "billing"),
        ("/v1/webhooks/payments/stripe", "billing"),
        ("/v1/audit/records", "audit"),
        ("/v1/reports/centres/1", "reporting"),
        ("/fhir/R4/Patient/1", "patients"),
        ("/fhir/R4/Appointment", "scheduling"),
        ("/fhir/R4/ServiceRequest", "referrals"),
        ("/fhir/R4", "lab-integration"),
    ],
)
def test_public_paths_go_to_the_service_that_owns_them(path: str, service: str) -> None:
    route = TABLE.match(path)
    assert route is not None
    assert route.service == service


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v1/patientsx", "/v2/patients", "/fhir", "/fhir/R4/Unknown", "/internal", "/v1/ops/x"],
)
def test_other_paths_go_nowhere(path: str) -> None:
    assert TABLE.match(path) is None


def test_the_longest_prefix_decides() -> None:
    table = RouteTable((Route("/a", "one"), Route("/a/*/c", "two"), Route("/a/b/c", "three")))
    matched = [table.match(path) for path in ("/a/x", "/a/x/c/d", "/a/b/c")]
    assert [route and route.service for route in matched] == ["one", "two", "three"]


def test_an_exact_route_has_nothing_below_it() -> None:
    table = RouteTable((Route("/a", "one"), Route("/a/b", "two", exact=True)))
    matched = [table.match(path) for path in ("/a/x", "/a/b", "/a/b/c")]
    assert [route and route.service for route in matched] == ["one", "two", None]


def test_a_prefix_cant_be_given_twice() -> None:
    with pytest.raises(ValueError, match="/a"):
        RouteTable((Route("/a", "one"), Route("/a", "two")))


def test_only_these_paths_need_no_token() -> None:
    public = {route.prefix for route in ROUTES if route.credentials is not Credentials.TOKEN}
    assert public == {
        "/v1/auth/login",
        "/v1/auth/refresh",
        "/v1/auth/otp",
        "/v1/auth/mfa",
        "/v1/auth/unlock",
        "/v1/auth/access-links",
        "/v1/browser/login",
        "/v1/browser/mfa",
        "/v1/browser/sso",
        "/welcome",
        "/oauth2",
        "/.well-known",
        "/v1/webhooks/messaging",
        "/v1/webhooks/payments",
        "/v1/lab/messages",
        "/fhir/R4",
        "/fhir/R4/.well-known",
    }


def test_who_logged_in_is_told_to_tokens_only() -> None:
    route = TABLE.match("/oauth2/userinfo")
    assert route is not None
    assert route.credentials is Credentials.TOKEN


def test_documents_and_lab_messages_may_be_larger() -> None:
    larger = {route.prefix for route in ROUTES if route.body in (Body.DOCUMENT, Body.LAB_MESSAGE)}
    assert larger == {"/v1/patients/*/documents", "/v1/lab/messages", "/fhir/R4"}


@pytest.mark.parametrize("file", sorted(CONTRACTS.glob("*.json")), ids=lambda file: file.stem)
def test_every_described_path_is_routed_to_its_service(file: Path) -> None:
    for path in json.loads(file.read_text())["paths"]:
        if not path.startswith(OWN):
            route = TABLE.match(path)
            assert route is not None, path
            assert route.service == file.stem, path
