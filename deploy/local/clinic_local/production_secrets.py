"""A deployment's secrets, one folder per service, made once: what a cluster's secret store is filled with.

`<service>/clinic_<setting>` is a setting in a file, as services read it from `CLINIC_SECRETS_DIR`. Nothing
that is there is ever replaced.
"""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from clinic_local.environment import database_name
from clinic_local.paths import private_dir, write_private

BROKER_USER = "clinic"
GATEWAY = "gateway"


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where the deployment's servers are, as `host:port`."""

    postgres: str
    amqp: str
    management: str
    vhost: str = "/"


class SecretsFolder:
    """Writes what is missing; remembers what it wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = private_dir(folder)
        self.written: list[str] = []

    def keep(self, name: str, make: Callable[[], str]) -> str:
        file = self.folder / name
        if not file.exists():
            write_private(file, make())
            self.written.append(name)
        return file.read_text(encoding="utf-8")


def random_secret() -> str:
    return secrets.token_urlsafe(32)


def make_all(folder: SecretsFolder, services: tuple[str, ...], at: Addresses) -> None:
    """Make passwords, the URLs with them, the signing keys, and what the two servers are set up with."""
    folder.keep("postgres/superuser-password", random_secret)
    broker_password = folder.keep("rabbitmq/password", random_secret)
    user = f"{BROKER_USER}:{broker_password}"
    amqp = f"amqp://{user}@{at.amqp}/{quote(at.vhost, safe='')}"
    statements = []
    for service in services:
        name, password = database_name(service), folder.keep(f"{service}/database-password", random_secret)
        folder.keep(
            f"{service}/clinic_database_url",
            _constant(f"postgresql://{name}:{password}@{at.postgres}/{name}"),
        )
        folder.keep(f"{service}/clinic_amqp_management_url", _constant(f"http://{user}@{at.management}"))
        statements += _database_statements(name, password)
    for member in (*services, GATEWAY):
        folder.keep(f"{member}/clinic_amqp_url", _constant(amqp))
    folder.keep("postgres/init.sql", _constant("\n".join([*statements, ""])))
    folder.keep("rabbitmq/definitions.json", lambda: _definitions(broker_password, at.vhost))
    _make_keys(folder, services)


def _make_keys(folder: SecretsFolder, services: tuple[str, ...]) -> None:
    # Loading a service takes a second: only for whoever makes keys.
    from clinic_audit import signing  # noqa: PLC0415
    from clinic_identity import keys  # noqa: PLC0415

    if "identity" in services:
        folder.keep(f"identity/{keys.CURRENT}", lambda: keys.new_signing_key().decode())
    if "audit" in services:
        folder.keep("audit/checkpoint-key.pem", lambda: signing.new_signing_key().decode())


def _database_statements(name: str, password: str) -> list[str]:
    # Our own names and URL-safe passwords: nothing in them needs quoting beyond this.
    return [
        f"CREATE ROLE {name} LOGIN PASSWORD '{password}';",
        f"CREATE DATABASE {name} OWNER {name};",
        f"REVOKE ALL ON DATABASE {name} FROM PUBLIC;",
    ]


def _definitions(password: str, vhost: str) -> str:
    return json.dumps(
        {
            "users": [{"name": BROKER_USER, "password": password, "tags": ["administrator"], "limits": {}}],
            "vhosts": [{"name": vhost}],
            "permissions": [
                {"user": BROKER_USER, "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*"}
            ],
        },
        indent=1,
    )


def _constant(text: str) -> Callable[[], str]:
    return lambda: text
