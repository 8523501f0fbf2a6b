"""Secrets that change under a running service, and secrets that production refuses."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import psycopg
import pytest
from clinic_shared.consumer import Handlers
from clinic_shared.health import Health
from clinic_shared.ids import uuid7
from clinic_shared.management import Management
from clinic_shared.production import DEVELOPMENT_MARK
from clinic_shared.reloading import SecretFiles, follow_secrets, reload
from clinic_shared.service import Runtime, Service, running
from clinic_shared.settings import ServiceSettings
from clinic_shared.testing import Servers, eventually
from psycopg import sql
from pydantic import ValidationError
from sqlalchemy import text

URLS: dict[str, Any] = {
    "database_url": "postgresql://x:long-and-random@db/x?sslmode=verify-full",
    "amqp_url": "amqps://x:long-and-random@mq/,amqps://x:long-and-random@mq-2/",
}
PRODUCTION: dict[str, Any] = {
    "environment": "production",
    "token_issuer": "https://clinic.example.org",
    **URLS,
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", f"postgresql://clinic:{DEVELOPMENT_MARK}abc@db/clinic"),
        ("database_url", "postgresql://postgres:postgres@db/clinic"),
        ("database_url", "postgresql://clinic:password@db/clinic"),
        ("amqp_url", "amqp://guest:guest@mq/"),
        ("amqp_management_url", "http://clinic:changeme@mq:15672"),
    ],
)
def test_production_refuses_secrets_that_were_made_for_development(name: str, value: str) -> None:
    ServiceSettings(**{**URLS, name: value})
    with pytest.raises(ValidationError) as refused:
        ServiceSettings(**{**PRODUCTION, name: value})
    assert f"CLINIC_{name.upper()}" in str(refused.value)
    assert value not in str(refused.value)


def test_production_takes_secrets_of_its_own() -> None:
    assert ServiceSettings(**PRODUCTION).environment == "production"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", "postgresql://x:long-and-random@db/x"),
        ("database_url", "postgresql://x:long-and-random@db/x?sslmode=require"),
        ("database_url", "postgresql://x:long-and-random@localhost:5432,db:5432/x"),
        ("database_url", "postgresql://x:long-and-random@localhost/x?host=db"),
        ("amqp_url", "amqps://x:long-and-random@mq/?no_verify_ssl=1"),
        ("amqp_url", "amqps://x:long-and-random@mq/,amqp://x:long-and-random@mq-2/"),
        ("amqp_management_url", "http://x:long-and-random@mq:15672"),
        ("jwks_url", "http://identity-api:8080/.well-known/jwks.json"),
    ],
)
def test_production_refuses_what_would_cross_the_network_in_clear(name: str, value: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ServiceSettings(**{**PRODUCTION, name: value})
    assert f"CLINIC_{name.upper()}" in str(refused.value)
    assert "long-and-random" not in str(refused.value)
    below = ServiceSettings(**{**PRODUCTION, name: value, "network_is_encrypted": True})
    assert below.network_is_encrypted


def test_production_refuses_to_serve_other_machines_without_a_certificate(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="CLINIC_TLS_CERTIFICATE_FILE"):
        ServiceSettings(**PRODUCTION, http_host="10.1.2.3")
    shown: dict[str, Any] = {"http_host": "10.1.2.3", "tls_certificate_file": tmp_path / "tls.crt"}
    assert ServiceSettings(**PRODUCTION, **shown).http_host == "10.1.2.3"


@pytest.mark.parametrize(
    "database", ["x:y-long@127.0.0.1/x", "/x?host=/run/postgresql", "x:y-long@localhost/x"]
)
def test_on_one_machine_production_needs_no_tls(database: str) -> None:
    local = {"database_url": f"postgresql://{database}", "amqp_url": "amqp://x:y-long@localhost/"}
    assert ServiceSettings(**PRODUCTION | local).environment == "production"


def test_production_refuses_an_issuer_that_nobody_chose() -> None:
    with pytest.raises(ValidationError, match="CLINIC_TOKEN_ISSUER"):
        ServiceSettings(**{**PRODUCTION, "token_issuer": "https://clinic.invalid"})


@pytest.mark.parametrize("name", ["CLINIC_ENV", "CLINIC_ENVIRONMENT"])
def test_both_spellings_of_the_environment_count(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLINIC_ENVIRONMENT", raising=False)
    monkeypatch.setenv(name, "production")
    monkeypatch.setenv("CLINIC_DATABASE_URL", "postgresql://postgres:postgres@db/clinic")
    monkeypatch.setenv("CLINIC_AMQP_URL", URLS["amqp_url"])
    with pytest.raises(ValidationError, match="CLINIC_DATABASE_URL"):
        ServiceSettings.load()


class Role:
    """A login at the real server whose password is a file."""

    def __init__(self, admin: psycopg.Connection[Any], url: str, folder: Path) -> None:
        self._admin = admin
        self._url = urlsplit(url)
        self._file = folder / "clinic_database_url"
        self.name = f"reloading_{uuid7().hex}"
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(self.name)))

    def set_password(self, password: str) -> None:
        self._admin.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(self.name), sql.Literal(password))
        )

    def write(self, password: str) -> None:
        netloc = f"{self.name}:{password}@{self._url.hostname}:{self._url.port}"
        self._file.write_text(urlunsplit(("postgresql", netloc, "/postgres", "", "")), encoding="utf-8")

    def drop(self) -> None:
        self._admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(self.name)))


@pytest.fixture
def role(postgres_admin: psycopg.Connection[Any], servers: Servers, tmp_path: Path) -> Iterator[Role]:
    role = Role(postgres_admin, servers.postgres_admin_url, tmp_path)
    role.set_password("first")
    role.write("first")
    yield role
    role.drop()


@pytest.fixture
async def runtime(
    role: Role, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Runtime]:
    monkeypatch.setenv("CLINIC_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("CLINIC_AMQP_URL", servers.amqp_url)
    service = Service(name="patients", package_dir=tmp_path, routers=(), handlers=Handlers("patients"))
    async with running(service, ServiceSettings.load()) as runtime:
        yield runtime


async def connects(runtime: Runtime) -> str:
    await runtime.database.engine.dispose()
    async with runtime.database.engine.connect() as connection:
        return str((await connection.execute(text("SELECT current_user"))).scalar_one())


async def test_a_changed_password_is_used_without_a_restart(runtime: Runtime, role: Role) -> None:
    assert await connects(runtime) == role.name
    stop = asyncio.Event()
    following = asyncio.create_task(
        follow_secrets(runtime.settings.secrets_dir, runtime.reload, Health.of(runtime), stop)
    )
    await asyncio.sleep(0)
    role.set_password("second")
    role.write("second")

    async def taken() -> bool:
        return "second" in runtime.settings.database_url.get_secret_value()

    await eventually(taken)
    assert await connects(runtime) == role.name
    stop.set()
    await following


async def test_what_cannot_be_used_is_refused_and_told(
    runtime: Runtime, role: Role, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clinic_database_pool_size").write_text("canary-4711", encoding="utf-8")
    assert not reload(runtime.reload, Health.of(runtime))
    assert "secrets" in Health.of(runtime).reasons
    assert "4711" not in capsys.readouterr().out
    assert await connects(runtime) == role.name
    (tmp_path / "clinic_database_pool_size").unlink()
    assert reload(runtime.reload, Health.of(runtime))
    assert "secrets" not in Health.of(runtime).reasons


async def test_a_listener_that_refuses_keeps_everything_as_it_was(runtime: Runtime, role: Role) -> None:
    def refuse(_: ServiceSettings) -> None:
        raise ValueError

    before = runtime.settings
    runtime.on_reload(refuse)
    role.write("second")
    assert not reload(runtime.reload, Health.of(runtime))
    assert runtime.settings is before


def test_a_folder_that_is_exchanged_as_a_whole_has_changed(tmp_path: Path) -> None:
    """As Kubernetes does it: files are links through `..data`, which is swapped."""
    for version in ("1", "2"):
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "clinic_amqp_url").write_text(f"amqp://{version}", encoding="utf-8")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "clinic_amqp_url").symlink_to("..data/clinic_amqp_url")
    files = SecretFiles(tmp_path)
    assert not files.have_changed()
    (tmp_path / "..swap").symlink_to("..2")
    (tmp_path / "..swap").rename(tmp_path / "..data")
    assert files.have_changed()
    assert not files.have_changed()


async def test_the_management_api_is_asked_with_the_changed_password(
    runtime: Runtime, servers: Servers, tmp_path: Path
) -> None:
    file = tmp_path / "clinic_amqp_management_url"
    right = urlsplit(servers.management_url)
    wrong = right._replace(netloc=f"nobody:wrong@{right.hostname}:{right.port}")
    file.write_text(wrong.geturl(), encoding="utf-8")
    runtime.reload()
    management = Management.of(runtime)
    assert management is not None
    async with management:
        with pytest.raises(httpx.HTTPStatusError, match="401"):
            await management.depths()
        file.write_text(servers.management_url, encoding="utf-8")
        runtime.reload()
        assert isinstance(await management.depths(), dict)
