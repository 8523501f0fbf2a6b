"""A deployment's secrets, one folder per process, made once: what a cluster's secret store is filled with.

`<service>/clinic_<setting>` is a setting in a file, as services read it from `CLINIC_SECRETS_DIR`. Nothing
that is there is ever replaced.
"""

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from clinic_shared.broker_access import EVERYTHING, Access, accesses
from clinic_shared.encryption import key_store

from clinic_local.environment import database_name
from clinic_local.paths import private_dir, write_private

EACH_SERVICE = "{service}"


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where the deployment's servers are, as `host:port`; `{service}` in PostgreSQL's stands for each service."""

    postgres: str
    amqp: str
    management: str
    vhost: str = "/"
    authority: str | None = None
    """Where processes find who vouches for them; without one, they are talked to in clear."""

    @property
    def database_options(self) -> str:
        return f"?sslmode=verify-full&sslrootcert={self.authority}" if self.authority else ""

    def broker_address(self, credentials: str) -> str:
        scheme, options = ("amqps", f"?cafile={self.authority}") if self.authority else ("amqp", "")
        return f"{scheme}://{credentials}@{self.amqp}/{quote(self.vhost, safe='')}{options}"

    def management_address(self, credentials: str) -> str:
        return f"{'https' if self.authority else 'http'}://{credentials}@{self.management}"


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


def make_all(
    folder: SecretsFolder, services: tuple[str, ...], at: Addresses, *, exchange_tokens: bool = False
) -> None:
    """Make passwords, the URLs with them, the signing keys, and what the two servers are set up with.

    A new deployment exchanges tokens at the gateway from the start; one that stands, when it is told to.
    """
    folder.keep("postgres/superuser-password", random_secret)
    folder.keep("grafana/admin-password", random_secret)
    statements = []
    for service in services:
        name, password = database_name(service), folder.keep(f"{service}/database-password", random_secret)
        server = at.postgres.replace(EACH_SERVICE, service)
        folder.keep(
            f"{service}/clinic_database_url",
            _constant(f"postgresql://{name}:{password}@{server}/{name}{at.database_options}"),
        )
        statements += _database_statements(name, password)
    folder.keep("postgres/init.sql", _constant("\n".join([*statements, ""])))
    users = [(access, _broker_password(folder, access, at)) for access in accesses(services)]
    folder.keep("rabbitmq/definitions.json", lambda: _definitions(users, at.vhost))
    _make_keys(folder, services, exchange_tokens=exchange_tokens)


def _broker_password(folder: SecretsFolder, access: Access, at: Addresses) -> str:
    """Make a user's password and the addresses with it: of AMQP for who may use a queue, of the API by its tags."""
    user = access.user
    password = folder.keep(f"{user}/broker-password", random_secret)
    amqp = at.broker_address(f"{user}:{password}")
    management = at.management_address(f"{user}:{password}")
    if "monitoring" in access.tags:
        folder.keep(f"{user}/host", _constant(management))
        return password
    folder.keep(f"{user}/clinic_amqp_url", _constant(amqp))
    if access.tags:
        folder.keep(f"{user}/clinic_amqp_management_url", _constant(management))
    return password


def _make_keys(folder: SecretsFolder, services: tuple[str, ...], *, exchange_tokens: bool) -> None:
    # Loading a service takes a second: only for whoever makes keys.
    from clinic_audit import signing  # noqa: PLC0415
    from clinic_gateway import token_exchange  # noqa: PLC0415
    from clinic_identity import keys, secret_box  # noqa: PLC0415
    from clinic_shared.internal_tokens import KEYS_FILE  # noqa: PLC0415

    for service in services:
        folder.keep(f"{service}/{key_store.FILE}", key_store.new_file)
    if "identity" in services:
        folder.keep(f"identity/{keys.CURRENT}", lambda: keys.new_signing_key().decode())
        folder.keep(f"identity/{secret_box.CURRENT}", lambda: secret_box.new_sealing_key().decode())
    if exchange_tokens or f"identity/{keys.CURRENT}" in folder.written:
        own = folder.keep(f"gateway/{token_exchange.KEY_FILE}", lambda: token_exchange.new_key().decode())
        for service in services:
            folder.keep(f"{service}/{KEYS_FILE}", _constant(token_exchange.public_keys(own.encode())))
    if "audit" in services:
        folder.keep("audit/checkpoint-key.pem", lambda: signing.new_signing_key().decode())


def _database_statements(name: str, password: str) -> list[str]:
    # Our own names and URL-safe passwords: nothing in them needs quoting beyond this.
    return [
        f"CREATE ROLE {name} LOGIN PASSWORD '{password}';",
        f"CREATE DATABASE {name} OWNER {name};",
        f"REVOKE ALL ON DATABASE {name} FROM PUBLIC;",
    ]


def _definitions(users: Sequence[tuple[Access, str]], vhost: str) -> str:
    """Return what a broker without operators is set up with: nobody may more than `broker_access` says."""
    return json.dumps(
        {
            "users": [
                {"name": access.user, "password": password, "tags": list(access.tags), "limits": {}}
                for access, password in users
            ],
            "vhosts": [{"name": vhost}],
            "permissions": [
                {
                    "user": access.user,
                    "vhost": vhost,
                    "configure": access.configure,
                    "write": access.write,
                    "read": access.read,
                }
                for access, _ in users
            ],
            "topic_permissions": [
                {
                    "user": access.user,
                    "vhost": vhost,
                    "exchange": exchange,
                    "write": write,
                    "read": EVERYTHING,
                }
                for access, _ in users
                for exchange, write in access.topics
            ],
        },
        indent=1,
    )


def _constant(text: str) -> Callable[[], str]:
    return lambda: text
