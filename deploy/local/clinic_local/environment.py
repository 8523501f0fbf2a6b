"""The environment of each process and the development secrets in it, made at the first start."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from clinic_shared.key_files import keep_first, marked_for_development
from clinic_shared.production import DEVELOPMENT_MARK
from psycopg import sql

from clinic_local.paths import private_dir, run_dir, write_private
from clinic_local.ports import LOOPBACK, PortBook
from clinic_local.postgres import PostgresServer
from clinic_local.rabbitmq import RabbitServer

GATEWAY_PORT = 8080
MLLP_PORT = 2575
ADMIN_LOGIN = "admin@demo.example.org"
ADMIN_PASSWORD = "demo-admin-password"  # noqa: S105  # a file's name below `.run/secrets/`
CLOCKS = "clocks"
_EXCHANGED = "CLINIC_INTERNAL_TOKENS_ONLY"
# What belongs to this machine's servers and not to a service.
_NOT_INHERITED = {
    "CLINIC_DETOUR_AMQP",
    "CLINIC_DETOUR_POSTGRES",
    "CLINIC_OTHER_RELEASE",
    "CLINIC_POSTGRES_URL",
    "CLINIC_POSTGRES_SOURCE",
    "CLINIC_RABBITMQ_SOURCE",
    "CLINIC_ROLES",
    "CLINIC_ROOT",
    "CLINIC_URL",
    "CLINIC_WITHOUT",
}
# Shared by the fakes of the vendors and the services that speak to them. Each stands under the names of both.
_VENDOR_SECRETS = {
    "whatsapp-access-token": ("CLINIC_WHATSAPP_ACCESS_TOKEN", "CLINIC_WHATSAPP_TOKEN"),
    "whatsapp-app-secret": ("CLINIC_WHATSAPP_APP_SECRET",),
    "whatsapp-verify-token": ("CLINIC_WHATSAPP_VERIFY_TOKEN",),
    "twilio-auth-token": ("CLINIC_TWILIO_AUTH_TOKEN",),
    "postmark-server-token": ("CLINIC_POSTMARK_SERVER_TOKEN",),
    "stripe-secret-key": ("CLINIC_STRIPE_SECRET_KEY", "CLINIC_STRIPE_API_KEY"),
    "stripe-webhook-secret": ("CLINIC_STRIPE_WEBHOOK_SECRET",),
    "yookassa-secret-key": ("CLINIC_YOOKASSA_SECRET_KEY",),
    "razorpay-key-secret": ("CLINIC_RAZORPAY_KEY_SECRET",),
    "razorpay-webhook-secret": ("CLINIC_RAZORPAY_WEBHOOK_SECRET",),
    "atol-password": ("CLINIC_ATOL_PASSWORD",),
}
_SPEAK_TO_VENDORS = {"notifications", "billing"}
_PREFIXES = {"stripe-secret-key": "sk_test_", "stripe-webhook-secret": "whsec_"}


class Secrets:
    """Random secrets of this checkout, one file each below `.run/secrets/`, readable by the owner only."""

    def __init__(self, root: Path) -> None:
        self.folder = private_dir(run_dir(root) / "secrets")

    def get(self, name: str, prefix: str = "") -> str:
        file = self.folder / name
        if not file.exists():
            write_private(file, prefix + DEVELOPMENT_MARK + secrets.token_urlsafe(24))
        return file.read_text()

    def vendor_secrets(self) -> dict[str, str]:
        values = {name: self.get(f"vendor/{name}", _PREFIXES.get(name, "")) for name in _VENDOR_SECRETS}
        return {
            variable: values[name] for name, variables in _VENDOR_SECRETS.items() for variable in variables
        }


class Environments:
    """Builds the environment of every process of one system."""

    def __init__(
        self,
        secrets_: Secrets,
        ports: PortBook,
        postgres: PostgresServer,
        rabbitmq: RabbitServer,
        services: tuple[str, ...],
    ) -> None:
        self._secrets = secrets_
        self._postgres = postgres
        self._rabbitmq = rabbitmq
        self.ports = {name: ports.take(f"http.{name}") for name in (*services, "fakes")}
        split = os.environ.get("CLINIC_ROLES") == "split"
        self.worker_ports = {name: ports.take(f"http.{name}-worker") for name in services if split}
        self.gateway_port = ports.take("http.gateway", preferred=GATEWAY_PORT)
        self.mllp_port = ports.take("mllp", preferred=MLLP_PORT)
        self._services = services

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.gateway_port}"

    def base_url(self, name: str) -> str:
        return f"http://{LOOPBACK}:{self.gateway_port if name == 'gateway' else self.ports[name]}"

    def of_service(self, name: str) -> dict[str, str]:
        exchanged = {}
        if _exchanges_tokens():
            know_gateway(self._secrets.folder, name)
            exchanged = {_EXCHANGED: "true"}
        return {
            **self._common(),
            **exchanged,
            **(self._vendors() if name in _SPEAK_TO_VENDORS else {}),
            "CLINIC_HTTP_PORT": str(self.ports[name]),
            "CLINIC_DATABASE_URL": _detour(self.database_url(name), "CLINIC_DETOUR_POSTGRES"),
            "CLINIC_SECRETS_DIR": str(private_dir(self._secrets.folder / name)),
            **self._of_one(name),
            **self._faults(name),
        }

    def _faults(self, name: str) -> dict[str, str]:
        """In tests, let a running service be told to die at a named point, and that its clock is wrong."""
        if os.environ.get("CLINIC_ENVIRONMENT") != "test":
            return {}
        run = self._secrets.folder.parent
        private_dir(run / CLOCKS)
        return {
            "CLINIC_CRASH_FILE": str(private_dir(run / "crash") / name),
            # Read by libfaketime, where it is preloaded.
            "FAKETIME_TIMESTAMP_FILE": str(run / CLOCKS / name),
        }

    def _of_one(self, name: str) -> dict[str, str]:
        """Return what only this service gets."""
        if name == "identity":
            return {
                "CLINIC_BOOTSTRAP_ADMIN_LOGIN": ADMIN_LOGIN,
                "CLINIC_BOOTSTRAP_ADMIN_PASSWORD": self._secrets.get(ADMIN_PASSWORD),
                # Browsers bind passkeys to names, never to addresses.
                "CLINIC_PASSKEY_RP_ID": "localhost",
                "CLINIC_PASSKEY_ORIGINS": f"http://localhost:{self.gateway_port}",
            }
        if name == "audit":
            key = private_dir(self._secrets.folder / name) / "checkpoint-key.pem"
            witness = private_dir(self._secrets.folder.parent / "witness") / "checkpoints.jsonl"
            return {"CLINIC_AUDIT_SIGNING_KEY_FILE": str(key), "CLINIC_AUDIT_WITNESS_FILE": str(witness)}
        if name == "lab-integration":
            folder = private_dir(self._secrets.folder.parent / "lab-files")
            return {"CLINIC_MLLP_PORT": str(self.mllp_port), "CLINIC_LAB_FILES_DIR": str(folder)}
        if name == "notifications":
            return {"CLINIC_FAKES_URL": self.base_url("fakes")}
        return {}

    def of_gateway(self) -> dict[str, str]:
        upstreams = ",".join(f"{name}={self.base_url(name)}" for name in self._services)
        own = {"CLINIC_SECRETS_DIR": str(private_dir(self._secrets.folder / "gateway"))}
        return {
            **self._common(),
            **(own if _exchanges_tokens() else {}),
            "CLINIC_HTTP_PORT": str(self.gateway_port),
            "CLINIC_UPSTREAMS": upstreams,
            "CLINIC_FAKES_URL": self.base_url("fakes"),
        }

    def of_fakes(self) -> dict[str, str]:
        # Not the broker's and the databases' addresses: outside vendors know nothing of them.
        return {
            **_inherited(os.environ),
            **self._secrets.vendor_secrets(),
            "CLINIC_HTTP_PORT": str(self.ports["fakes"]),
            "CLINIC_URL": self.url,
        }

    def database_url(self, service: str) -> str:
        name = database_name(service)
        return self._postgres.url_of(name, user=name, password=self._secrets.get(f"{service}/database"))

    def printed(self) -> dict[str, str]:
        """Return what `.run/env` tells people and tests."""
        return {
            "CLINIC_URL": self.url,
            "CLINIC_FAKES_URL": self.base_url("fakes"),
            "CLINIC_LAB_MLLP": f"{LOOPBACK}:{self.mllp_port}",
            # Not as CLINIC_AMQP_URL and CLINIC_POSTGRES_URL: those tell the next start to use given servers.
            "CLINIC_PRIVATE_AMQP_URL": self._rabbitmq.amqp_url,
            "CLINIC_PRIVATE_AMQP_MANAGEMENT_URL": self._rabbitmq.management_url,
            **self._broker_metrics(),
            "CLINIC_PRIVATE_POSTGRES_URL": self._postgres.admin_url,
            **{f"CLINIC_{_upper(name)}_URL": self.base_url(name) for name in self._services},
            **{f"CLINIC_{_upper(name)}_DATABASE_URL": self.database_url(name) for name in self._services},
        }

    def _broker_metrics(self) -> dict[str, str]:
        url = self._rabbitmq.metrics_url
        return {"CLINIC_PRIVATE_AMQP_METRICS_URL": url} if url else {}

    def _common(self) -> dict[str, str]:
        jwks = {}
        if "identity" in self._services:
            jwks = {"CLINIC_JWKS_URL": f"{self.base_url('identity')}/.well-known/jwks.json"}
        return {
            "CLINIC_ENVIRONMENT": "development",
            **_inherited(os.environ),
            **jwks,
            "CLINIC_AMQP_URL": _detour(self._rabbitmq.amqp_url, "CLINIC_DETOUR_AMQP"),
            "CLINIC_AMQP_MANAGEMENT_URL": self._rabbitmq.management_url,
            "CLINIC_SUBSCRIBED_SERVICES": ",".join(self._services),
            "CLINIC_URL": self.url,
        }

    def _vendors(self) -> dict[str, str]:
        fakes = self.base_url("fakes")
        return {
            **self._secrets.vendor_secrets(),
            "CLINIC_WHATSAPP_BASE_URL": fakes,
            "CLINIC_SMS_BASE_URL": fakes,
            "CLINIC_TWILIO_BASE_URL": fakes,
            "CLINIC_POSTMARK_BASE_URL": fakes,
            "CLINIC_PAYMENT_PROVIDER": "stripe,yookassa,razorpay",
            "CLINIC_STRIPE_BASE_URL": fakes,
            "CLINIC_YOOKASSA_BASE_URL": fakes,
            "CLINIC_YOOKASSA_SHOP_ID": "100001",
            "CLINIC_RAZORPAY_BASE_URL": fakes,
            "CLINIC_RAZORPAY_KEY_ID": "rzp_test_fictitious",
            "CLINIC_ATOL_BASE_URL": fakes,
            "CLINIC_ATOL_LOGIN": "fictitious-atol-login",
        }


def _exchanges_tokens() -> bool:
    return os.environ.get(_EXCHANGED) != "false"


def know_gateway(secrets_folder: Path, service: str) -> None:
    """Make the gateway's key, and give a service its public half; what is there stays."""
    known = private_dir(secrets_folder / service) / "gateway-keys.json"
    if known.exists():
        return
    # Only when there is something to make: loading this takes a while.
    from clinic_gateway import token_exchange  # noqa: PLC0415

    key = private_dir(secrets_folder / "gateway") / token_exchange.KEY_FILE
    keep_first(key, marked_for_development(token_exchange.new_key()))
    write_private(known, token_exchange.public_keys(key.read_bytes()))


def _upper(service: str) -> str:
    return service.upper().replace("-", "_")


def _inherited(environ: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in environ.items() if name not in _NOT_INHERITED}
    # A proxy for the world outside must not get what goes from one of our processes to another.
    for name in ("no_proxy", "NO_PROXY"):
        kept[name] = ",".join(part for part in (kept.get(name), LOOPBACK, "localhost") if part)
    return kept


def _detour(url: str, variable: str) -> str:
    """In tests, lead processes to a server by way of `host:port`, where something may happen to what they say."""
    way = os.environ.get(variable)
    if way is None or os.environ.get("CLINIC_ENVIRONMENT") != "test":
        return url
    parts = urlsplit(url)
    credentials, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{credentials}{at}{way}").geturl()


def clock_file(root: Path, service: str) -> Path:
    """Return where a test says by how many seconds a service's clock is wrong."""
    return run_dir(root) / CLOCKS / service


def database_name(service: str) -> str:
    return f"clinic_{service.replace('-', '_')}"


def create_databases(postgres: PostgresServer, services: tuple[str, ...], secrets_: Secrets) -> None:
    """Give each service a database and a role of its own; nobody else may connect to it. Repeatable."""
    with psycopg.connect(postgres.admin_url, autocommit=True) as admin:
        roles = {row[0] for row in admin.execute("SELECT rolname FROM pg_roles")}
        databases = {row[0] for row in admin.execute("SELECT datname FROM pg_database")}
        for service in services:
            plain = database_name(service)
            name = sql.Identifier(plain)
            verb = sql.SQL("ALTER" if plain in roles else "CREATE")
            password = sql.Literal(secrets_.get(f"{service}/database"))
            admin.execute(sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(verb, name, password))
            if plain not in databases:
                # A given server's administrator need not be a superuser, and then must be of the owner's role.
                admin.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(name))
                admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))
                admin.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
