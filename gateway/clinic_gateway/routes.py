"""Which service answers which public path (design section 6). The longest matching prefix decides."""

from dataclasses import dataclass
from enum import StrEnum


class Credentials(StrEnum):
    """What the gateway wants to see before it passes a request on."""

    TOKEN = "token"  # noqa: S105
    TOKEN_OR_BASIC = "token-or-basic"  # noqa: S105  # interface engines of laboratories know nothing else
    PUBLIC = "public"


class Body(StrEnum):
    """What a path accepts as a body, and how much of it."""

    JSON = "json"
    FORM = "form"
    LAB_MESSAGE = "lab-message"
    DOCUMENT = "document"
    ANY = "any"


@dataclass(frozen=True)
class Route:
    """`prefix` matches whole segments; a segment `*` matches any one."""

    prefix: str
    service: str
    credentials: Credentials = Credentials.TOKEN
    body: Body = Body.JSON
    sign_in: bool = False
    """Guessable secrets go in here: the strict rate limit holds."""
    intake: bool = False
    """What machines outside hand over and would have to keep otherwise: it goes before everything else."""
    certificate: bool = False
    """Whether the service is told which certificate the caller has shown."""
    exact: bool = False
    """Nothing below the prefix belongs to it."""


def _all(service: str, *names: str) -> list[Route]:
    return [Route(f"/v1/{name}", service) for name in names]


FHIR_RESOURCES = {
    "patients": (
        "Patient", "Encounter", "Condition", "Consent", "Observation", "DiagnosticReport",
        "DocumentReference", "MedicationRequest",
    ),
    "scheduling": ("Practitioner", "PractitionerRole", "Schedule", "Slot", "Appointment", "HealthcareService"),
    "referrals": ("ServiceRequest", "Task"),
    "identity": ("Organization", "Location"),
    "billing": ("Invoice", "ChargeItem"),
    "audit": ("AuditEvent",),
}  # fmt: skip

ROUTES: tuple[Route, ...] = (
    Route("/v1/auth/login", "identity", Credentials.PUBLIC, sign_in=True),
    Route("/v1/auth/refresh", "identity", Credentials.PUBLIC, sign_in=True),
    Route("/v1/auth/otp", "identity", Credentials.PUBLIC, sign_in=True),
    Route("/v1/auth/mfa", "identity", Credentials.PUBLIC, sign_in=True),
    Route("/v1/auth/unlock", "identity", Credentials.PUBLIC, sign_in=True),
    Route("/v1/auth/step-up", "identity", sign_in=True),
    Route("/v1/auth/access-links", "identity", Credentials.PUBLIC, sign_in=True),
    Route("/v1/auth", "identity"),
    Route("/v1/browser", "identity"),
    Route("/v1/browser/login", "identity", Credentials.PUBLIC, sign_in=True),
    Route("/v1/browser/sso", "identity", Credentials.PUBLIC, sign_in=True),
    Route("/v1/browser/mfa", "identity", Credentials.PUBLIC, sign_in=True),
    Route("/v1/browser/step-up", "identity", sign_in=True),
    Route("/welcome", "identity", Credentials.PUBLIC, Body.FORM, sign_in=True),
    Route("/oauth2", "identity", Credentials.PUBLIC, Body.FORM, sign_in=True, certificate=True),
    Route("/oauth2/userinfo", "identity", body=Body.FORM),
    Route("/.well-known", "identity", Credentials.PUBLIC),
    Route("/fhir/R4/.well-known", "identity", Credentials.PUBLIC),
    *_all("identity", "me", "legal-entities", "centres", "departments", "staff", "users", "clients", "roles"),
    *_all("identity", "sessions", "access-reviews"),
    *_all("patients", "patients", "break-glass"),
    Route("/v1/patients/*/documents", "patients", body=Body.DOCUMENT),
    Route("/v1/patients/*/access-log", "audit"),
    *_all("scheduling", "practitioners", "rooms", "devices", "services", "availability", "slots", "holds"),
    *_all("scheduling", "appointments", "series", "waitlist", "queue", "booking-requests"),
    *_all("referrals", "referrals"),
    *_all("notifications", "messages", "templates", "preferences", "webhooks/subscriptions", "dev/inbox"),
    Route("/v1/webhooks/messaging", "notifications", Credentials.PUBLIC, Body.ANY, intake=True),
    *_all("lab-integration", "lab"),
    Route("/v1/lab/messages", "lab-integration", Credentials.TOKEN_OR_BASIC, Body.LAB_MESSAGE, intake=True),
    *_all("billing", "prices", "invoices", "payments", "refunds", "receipts"),
    Route("/v1/webhooks/payments", "billing", Credentials.PUBLIC, Body.ANY, intake=True),
    *_all("audit", "audit"),
    *_all("reporting", "reports"),
    Route(
        "/fhir/R4", "lab-integration", Credentials.TOKEN_OR_BASIC, Body.LAB_MESSAGE, intake=True, exact=True
    ),
    *(Route(f"/fhir/R4/{name}", service) for service, names in FHIR_RESOURCES.items() for name in names),
)

SERVICES = tuple(sorted({route.service for route in ROUTES}))
OPERATIONS_PREFIX = "/v1/ops"
BROWSER_PREFIX = "/v1/browser/"


class RouteTable:
    """Prefixes as a tree of segments: a look-up costs one step per segment of the path."""

    def __init__(self, routes: tuple[Route, ...] = ROUTES) -> None:
        self._root = _Node({}, None)
        for route in routes:
            self._root.add(route.prefix.strip("/").split("/"), route)

    def match(self, path: str) -> Route | None:
        """Return the route with the longest matching prefix; a literal segment beats `*`."""
        node: _Node | None = self._root
        found = None
        for segment in path.strip("/").split("/"):
            if found is not None and found.exact:
                found = None
            node = node.children.get(segment) or node.children.get("*") if node else None
            if node is None:
                break
            found = node.route or found
        return found


@dataclass
class _Node:
    children: "dict[str, _Node]"
    route: Route | None

    def add(self, segments: list[str], route: Route) -> None:
        node = self
        for segment in segments:
            node = node.children.setdefault(segment, _Node({}, None))
        if node.route is not None:
            raise ValueError(route.prefix)
        node.route = route
