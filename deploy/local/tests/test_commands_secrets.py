"""`clinic secrets`, `clinic config`, `clinic bootstrap`: what an operator does before the first start."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from clinic_identity.app import service as identity
from clinic_shared import contracts
from clinic_shared.broker_access import accesses
from clinic_shared.ids import uuid7
from clinic_shared.production import is_for_development
from clinic_shared.service import Service
from clinic_shared.testing import Servers

PRODUCTION = {
    "CLINIC_ENV": "production",
    "CLINIC_NETWORK_IS_ENCRYPTED": "true",
    "CLINIC_TOKEN_ISSUER": "https://clinic.example.org",
    "CLINIC_JWKS_URL": "http://identity:8000/.well-known/jwks.json",
}
VENDORS = {
    "notifications": (
        "clinic_whatsapp_access_token",
        "clinic_whatsapp_app_secret",
        "clinic_whatsapp_verify_token",
        "clinic_twilio_auth_token",
        "clinic_postmark_server_token",
    ),
    "billing": ("clinic_stripe_secret_key", "clinic_stripe_webhook_secret"),
}


@pytest.fixture
def clinic(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CLINIC_")}

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "clinic_local.cli", *map(str, arguments)],
            env={**kept, "CLINIC_ROOT": str(tmp_path / "root"), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


@pytest.fixture
def folder(tmp_path: Path, clinic: Any) -> Path:
    made = tmp_path / "secrets"
    assert clinic("secrets", "init", made).returncode == 0
    return made


def bring_vendors_secrets(folder: Path) -> None:
    for service, names in VENDORS.items():
        for name in names:
            (folder / service / name).write_text("given-by-the-vendor", encoding="utf-8")


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_secrets_are_made_once_and_for_their_owner_only(folder: Path, clinic: Any) -> None:
    before = files(folder)
    assert clinic("secrets", "init", folder).returncode == 0
    assert files(folder) == before
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.rglob("*") if file.is_file()} == {0o600}
    passwords = [text for name, text in before.items() if name.endswith("database-password")]
    assert len(set(passwords)) == len(contracts.load().services)
    assert not [name for name, text in before.items() if is_for_development(text.decode())]


def test_each_process_has_a_broker_user_that_may_what_it_needs(folder: Path) -> None:
    definitions = json.loads((folder / "rabbitmq" / "definitions.json").read_text())
    users = {user["name"]: user for user in definitions["users"]}
    assert set(users) == {*contracts.load().services, "gateway", "topology", "keda"}
    assert not [name for name, user in users.items() if "administrator" in user["tags"]]
    permissions = {one["user"]: one for one in definitions["permissions"]}
    for access in accesses(tuple(contracts.load().services)):
        given = permissions[access.user]
        assert (given["configure"], given["write"], given["read"]) == (
            access.configure,
            access.write,
            access.read,
        )
        topics = [one for one in definitions["topic_permissions"] if one["user"] == access.user]
        assert [(one["exchange"], one["write"]) for one in topics] == list(access.topics)
    url = urlsplit((folder / "scheduling" / "clinic_amqp_url").read_text())
    assert (url.username, url.password) == ("scheduling", users["scheduling"]["password"])
    assert len({user["password"] for user in users.values()}) == len(users)


def test_databases_may_be_servers_of_their_own(tmp_path: Path, clinic: Any) -> None:
    made = clinic(
        "secrets", "init", tmp_path / "s", "--postgres", "{service}-database-rw:5432", "--vhost", "clinic"
    )
    assert made.returncode == 0
    url = urlsplit((tmp_path / "s" / "lab-integration" / "clinic_database_url").read_text())
    assert (url.hostname, url.path) == ("lab-integration-database-rw", "/clinic_lab_integration")
    assert (tmp_path / "s" / "gateway" / "clinic_amqp_url").read_text().endswith("@rabbitmq:5672/clinic")


def test_a_broker_takes_the_definitions(folder: Path, servers: Servers) -> None:
    """In a virtual host and under names of this test's own."""
    run = uuid7().hex
    definitions = json.loads((folder / "rabbitmq" / "definitions.json").read_text())
    for entry in (*definitions["users"], *definitions["vhosts"]):
        entry["name"] = run if entry["name"] == "/" else f"{entry['name']}-{run}"
    for entry in (*definitions["permissions"], *definitions["topic_permissions"]):
        entry |= {"vhost": run, "user": f"{entry['user']}-{run}"}
    with httpx.Client(base_url=servers.management_url, trust_env=False, timeout=60) as management:
        management.post("/api/definitions", json=definitions).raise_for_status()
        password = (folder / "patients" / "broker-password").read_text()
        me = management.get("/api/whoami", auth=(f"patients-{run}", password))
        for user in definitions["users"]:
            management.delete(f"/api/users/{user['name']}").raise_for_status()
        management.delete(f"/api/vhosts/{run}").raise_for_status()
    assert me.json()["tags"] == ["management"]


def test_every_service_could_start_with_them_once_the_vendors_are_brought(folder: Path, clinic: Any) -> None:
    without = clinic("config", "check", "--secrets", folder, **PRODUCTION)
    assert without.returncode == 1
    assert "CLINIC_STRIPE_SECRET_KEY" in without.stdout
    bring_vendors_secrets(folder)
    checked = clinic("config", "check", "--secrets", folder, "--json", **PRODUCTION)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    document = json.loads(checked.stdout)
    assert set(document["effective"]) == set(contracts.load().services)
    for secret in files(folder).values():
        assert secret.decode().strip() not in checked.stdout


def test_what_would_stop_a_service_is_named(folder: Path, clinic: Any) -> None:
    (folder / "identity" / "signing-key.pem").unlink()
    (folder / "patients" / "clinic_database_url").write_text("postgresql://postgres:postgres@db/x")
    (folder / "scheduling" / "clinic_amqp_url").unlink()
    services = ("identity", "patients", "scheduling", "referrals")
    told = clinic("config", "check", *services, "--secrets", folder, CLINIC_TOKEN_ISUER="x", **PRODUCTION)
    assert told.returncode == 1
    lines = {line.split()[0]: line for line in told.stdout.splitlines() if line}
    assert "signing-key.pem" in lines["identity"]
    assert "CLINIC_DATABASE_URL" in lines["patients"]
    assert "CLINIC_AMQP_URL" in lines["scheduling"]
    assert "referrals" not in lines
    assert "CLINIC_TOKEN_ISSUER?" in lines["CLINIC_TOKEN_ISUER"]
    assert "postgres:postgres" not in told.stdout


def test_looking_makes_no_key(tmp_path: Path, clinic: Any) -> None:
    told = clinic(
        *("config", "check", "identity"),
        CLINIC_SECRETS_DIR=str(tmp_path),
        CLINIC_DATABASE_URL="postgresql://x",
        CLINIC_AMQP_URL="amqp://x",
    )
    assert told.returncode == 0, told.stdout
    assert not list(tmp_path.glob("*.pem"))


def test_the_signing_key_is_rotated_one_step_a_call(folder: Path, clinic: Any) -> None:
    told = clinic("secrets", "rotate-signing-key", folder / "identity")
    assert "published" in told.stdout
    again = clinic("secrets", "rotate-signing-key", folder / "identity")
    assert "nothing to do yet" in again.stdout
    assert {file.name for file in (folder / "identity").glob("*.pem")} == {
        "signing-key.pem",
        "signing-key-next.pem",
    }
    missing = clinic("secrets", "rotate-signing-key", folder / "billing")
    assert missing.returncode == 1
    assert "clinic secrets init" in missing.stderr


def test_the_first_administrator_gets_a_link(
    clinic: Any, database_of: Callable[[Service], str], postgres_admin: psycopg.Connection[Any]
) -> None:
    environment = {
        "CLINIC_IDENTITY_DATABASE_URL": database_of(identity),
        "CLINIC_URL": "https://clinic.example.org",
    }
    told = clinic("bootstrap", "admin", "admin@example.org", **environment)
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[-1].startswith("https://clinic.example.org/welcome?token=al_")
    other = clinic("bootstrap", "admin", "somebody.else@example.org", **environment)
    assert other.returncode == 1
    assert "there is an administrator already" in other.stderr


@pytest.mark.parametrize("command", ["up", "seed", "demo"])
def test_a_development_system_is_not_started_as_production(clinic: Any, command: str) -> None:
    told = clinic(command, CLINIC_ENV="production")
    assert told.returncode == 1
    assert "production" in told.stderr


def test_where_identity_is_not_it_is_said(clinic: Any) -> None:
    told = clinic("bootstrap", "admin", "admin@example.org")
    assert told.returncode == 1
    assert "CLINIC_IDENTITY_DATABASE_URL" in told.stderr
    assert "Traceback" not in told.stderr
